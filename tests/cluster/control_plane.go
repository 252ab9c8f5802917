package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
)

const serverURL = "https://127.0.0.1:443"

// The controllers that a test may want; those of clouds, disks and certificates are left out.
var controllers = []string{
	"deployment-controller", "replicaset-controller", "statefulset-controller", "daemonset-controller", "job-controller",
	"horizontal-pod-autoscaler-controller", "disruption-controller", "resourcequota-controller",
	"endpointslice-controller", "endpoints-controller", "serviceaccount-controller", "serviceaccount-token-controller",
	"root-ca-certificate-publisher-controller", "namespace-controller", "garbage-collector-controller",
	"clusterrole-aggregation-controller", "node-lifecycle-controller", "taint-eviction-controller",
}

// The files of the control plane.
type credentials struct {
	folder     string
	cluster    *authority
	frontProxy *authority
	// Certificate and key that the apiserver shows to aggregated servers.
	frontProxyCertificate, frontProxyKey string
	adminKubeconfig, managerKubeconfig   string
}

// newCredentials makes everything that the components need to trust each other.
func newCredentials(folder string) (*credentials, error) {
	made := &credentials{folder: folder}
	var err error
	if made.cluster, err = newAuthority(folder, "cluster-ca"); err != nil {
		return nil, err
	}
	// Apart from the cluster's: whoever it signs for may speak in anyone's name.
	if made.frontProxy, err = newAuthority(folder, "front-proxy-ca"); err != nil {
		return nil, err
	}
	made.frontProxyCertificate, made.frontProxyKey, err = made.frontProxy.issue(folder, "front-proxy-client", subject{name: "front-proxy-client"})
	if err != nil {
		return nil, err
	}
	if err := writeServiceAccountKey(filepath.Join(folder, "service-accounts")); err != nil {
		return nil, err
	}
	names := []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"127.0.0.1", gateway, serviceAddress,
	}
	if _, _, err := made.cluster.issue(folder, "apiserver", subject{name: "kube-apiserver", hosts: names}); err != nil {
		return nil, err
	}
	if _, _, err := made.cluster.issue(folder, "manager-server", subject{name: "manager", hosts: []string{"localhost", "127.0.0.1"}}); err != nil {
		return nil, err
	}
	if made.adminKubeconfig, err = made.kubeconfig("admin", subject{name: "admin", group: "system:masters"}); err != nil {
		return nil, err
	}
	made.managerKubeconfig, err = made.kubeconfig("manager", subject{name: "system:kube-controller-manager"})
	return made, err
}

func (c *credentials) file(name string) string { return filepath.Join(c.folder, name) }

// etcdComponent stores the objects.
func etcdComponent(program, folder string) *component {
	return &component{
		name:      "etcd",
		program:   program,
		arguments: []string{"--data-dir=" + filepath.Join(folder, "etcd")},
		log:       filepath.Join(folder, "etcd.log"),
		ready: func(ctx context.Context) error {
			return getOK(ctx, "http://127.0.0.1:2379/health")
		},
	}
}

// apiserverComponent serves the API on port 443 of every address: pods find it where a cluster's would be.
func apiserverComponent(program, folder string, credentials *credentials, more []string) *component {
	arguments := []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", "--secure-port=443",
		"--service-cluster-ip-range=" + serviceNetwork,
		"--authorization-mode=RBAC",
		"--client-ca-file=" + credentials.file("cluster-ca.crt"),
		"--tls-cert-file=" + credentials.file("apiserver.crt"), "--tls-private-key-file=" + credentials.file("apiserver.key"),
		"--cert-dir=" + folder,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + credentials.file("service-accounts.pub"),
		"--service-account-signing-key-file=" + credentials.file("service-accounts.key"),
		"--requestheader-client-ca-file=" + credentials.file("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + credentials.frontProxyCertificate, "--proxy-client-key-file=" + credentials.frontProxyKey,
		// No kube-proxy runs: the aggregator dials the addresses behind a Service itself.
		"--enable-aggregator-routing=true",
		"--feature-gates=HPAScaleToZero=true",
		// Nothing publishes endpoints of default/kubernetes: its address is one of this network namespace.
		"--advertise-address=" + serviceAddress, "--endpoint-reconciler-type=none",
	}
	return &component{
		name:      "kube-apiserver",
		program:   program,
		arguments: append(arguments, more...),
		log:       filepath.Join(folder, "kube-apiserver.log"),
		ready: func(ctx context.Context) error {
			return getOK(ctx, serverURL+"/readyz")
		},
	}
}

// managerComponent runs the controllers. They need the apiserver ready: their roles come with it.
func managerComponent(program, folder string, credentials *credentials, hpaSync string, more []string) *component {
	arguments := []string{
		"--kubeconfig=" + credentials.managerKubeconfig,
		"--authentication-kubeconfig=" + credentials.managerKubeconfig, "--authorization-kubeconfig=" + credentials.managerKubeconfig,
		"--bind-address=127.0.0.1", "--secure-port=10257",
		"--tls-cert-file=" + credentials.file("manager-server.crt"), "--tls-private-key-file=" + credentials.file("manager-server.key"),
		"--root-ca-file=" + credentials.file("cluster-ca.crt"),
		"--service-account-private-key-file=" + credentials.file("service-accounts.key"),
		"--use-service-account-credentials=true", "--leader-elect=false",
		"--feature-gates=HPAScaleToZero=true",
		"--horizontal-pod-autoscaler-sync-period=" + hpaSync,
		"--horizontal-pod-autoscaler-downscale-stabilization=1s",
		"--horizontal-pod-autoscaler-initial-readiness-delay=0s",
		"--controllers=" + strings.Join(controllers, ","),
		// Tests start and stop faster than the default allows.
		"--kube-api-qps=200", "--kube-api-burst=400",
	}
	return &component{
		name:      "kube-controller-manager",
		program:   program,
		arguments: append(arguments, more...),
		log:       filepath.Join(folder, "kube-controller-manager.log"),
		ready: func(ctx context.Context) error {
			return getOK(ctx, "https://127.0.0.1:10257/healthz")
		},
	}
}

// schedulerComponent places pods.
func schedulerComponent(program, folder string, credentials *credentials) (*component, error) {
	kubeconfig, err := credentials.kubeconfig("scheduler", subject{name: "system:kube-scheduler"})
	if err != nil {
		return nil, err
	}
	return &component{
		name:    "kube-scheduler",
		program: program,
		arguments: []string{
			"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1", "--secure-port=10259",
			"--tls-cert-file=" + credentials.file("manager-server.crt"), "--tls-private-key-file=" + credentials.file("manager-server.key"),
			"--leader-elect=false",
		},
		log: filepath.Join(folder, "kube-scheduler.log"),
		ready: func(ctx context.Context) error {
			return getOK(ctx, "https://127.0.0.1:10259/healthz")
		},
	}, nil
}

// getOK asks a component how it is. Nothing secret goes there, so its certificate is not looked at.
func getOK(ctx context.Context, url string) error {
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
		DialContext:       (&net.Dialer{}).DialContext,
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}
