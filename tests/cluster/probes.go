package main

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
)

// The probers of a kubelet; TLS is not verified, as there.
var (
	httpProber = httpprobe.New(false)
	tcpProber  = tcpprobe.New()
	grpcProber = grpcprobe.New()
)

// watch probes until the context ends, and reports each time that enough results in a row say the same. The first report may
// be a failure only after failureThreshold of them. what names the probe in events.
func watch(ctx context.Context, what string, definition *v1.Probe, container *container, report func(success bool, message string)) {
	if !sleep(ctx, seconds(definition.InitialDelaySeconds)) {
		return
	}
	every := time.NewTicker(max(seconds(definition.PeriodSeconds), time.Second))
	defer every.Stop()
	successes, failures := int32(0), int32(0)
	for {
		success, message := probeOnce(definition, container)
		if ctx.Err() != nil {
			return
		}
		if success {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
			container.pod.event(v1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe of %s failed: %s", what, container.spec.Name, message))
		}
		if successes >= max(definition.SuccessThreshold, 1) || failures >= max(definition.FailureThreshold, 1) {
			report(success, message)
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// probeOnce gives the result of one probe and what it says.
func probeOnce(definition *v1.Probe, container *container) (bool, string) {
	timeout := max(seconds(definition.TimeoutSeconds), time.Second)
	address := container.pod.address()
	host := func(named string) string {
		if named == "" {
			return address
		}
		return named
	}
	var result probe.Result
	var message string
	var err error
	switch handler := definition.ProbeHandler; {
	case handler.HTTPGet != nil:
		request, failed := httpprobe.NewRequestForHTTPGetAction(handler.HTTPGet, container.spec, address, "probe")
		if failed != nil {
			return false, failed.Error()
		}
		result, message, err = httpProber.Probe(request, timeout)
	case handler.TCPSocket != nil:
		port, failed := probe.ResolveContainerPort(handler.TCPSocket.Port, container.spec)
		if failed != nil {
			return false, failed.Error()
		}
		result, message, err = tcpProber.Probe(host(handler.TCPSocket.Host), port, timeout)
	case handler.GRPC != nil:
		service := ""
		if handler.GRPC.Service != nil {
			service = *handler.GRPC.Service
		}
		port, failed := probe.ResolveContainerPort(intstr.FromInt32(handler.GRPC.Port), container.spec)
		if failed != nil {
			return false, failed.Error()
		}
		tls := handler.GRPC.Mode != nil && *handler.GRPC.Mode == v1.GRPCProbeModeTLS
		result, message, err = grpcProber.Probe(address, service, port, timeout, grpcprobe.ProbeOptions{UseTLS: tls})
	default:
		return false, "nodes of tests have no exec probes: use httpGet, tcpSocket or grpc"
	}
	if err != nil {
		return false, err.Error()
	}
	return result == probe.Success || result == probe.Warning, message
}

// sleep waits; whether the context still holds.
func sleep(ctx context.Context, time_ time.Duration) bool {
	if time_ <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(time_)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func seconds[N int32 | int64](count N) time.Duration { return time.Duration(count) * time.Second }
