// Package clients asks weir's metrics API with the Go clients that Kubernetes itself uses.
//
// tests/clients.rs starts weir beside simulated servers and names it here by environment variables.
package clients

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/metrics/pkg/client/custom_metrics"
	"k8s.io/metrics/pkg/client/external_metrics"
)

const (
	namespace = "default"
	pool      = "llama"
	inflight  = "inference_pool_total_inflight_requests"
	kvMean    = "inference_pool_average_kv_cache_utilization"
	podQueue  = "inference_pod_queue_size"
)

var (
	poolKind      = schema.GroupKind{Group: "inference.networking.k8s.io", Kind: "InferencePool"}
	podKind       = schema.GroupKind{Kind: "Pod"}
	namespaceKind = schema.GroupKind{Kind: "Namespace"}
)

func config(t *testing.T) *rest.Config {
	t.Helper()
	address := os.Getenv("WEIR_ADAPTER")
	if address == "" {
		t.Skip("WEIR_ADAPTER is not set: run by tests/clients.rs")
	}
	return &rest.Config{
		Host:            "https://" + address,
		BearerToken:     os.Getenv("WEIR_TOKEN"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: os.Getenv("WEIR_CA")},
		Timeout:         5 * time.Second,
	}
}

// protobuf is how the controller manager asks.
func protobuf(config *rest.Config) *rest.Config {
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	return config
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func selector(t *testing.T, text string) labels.Selector {
	t.Helper()
	return must[labels.Selector](t)(labels.Parse(text))
}

func TestDiscovery(t *testing.T) {
	client := must[*discovery.DiscoveryClient](t)(discovery.NewDiscoveryClientForConfig(config(t)))
	groups, resources, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	preferred := map[string]string{}
	for _, group := range groups {
		preferred[group.Name] = group.PreferredVersion.Version
	}
	if preferred["external.metrics.k8s.io"] != "v1beta1" || preferred["custom.metrics.k8s.io"] != "v1beta2" {
		t.Errorf("preferred versions: %v", preferred)
	}
	found := map[string]bool{}
	for _, list := range resources {
		if len(list.APIResources) == 0 {
			t.Errorf("%s is empty: clients take that for an error", list.GroupVersion)
		}
		for _, resource := range list.APIResources {
			found[list.GroupVersion+" "+resource.Name] = true
		}
	}
	for _, wanted := range []string{
		"external.metrics.k8s.io/v1beta1 " + inflight,
		"custom.metrics.k8s.io/v1beta1 inferencepools.inference.networking.k8s.io/" + inflight,
		"custom.metrics.k8s.io/v1beta2 pods/" + podQueue,
	} {
		if !found[wanted] {
			t.Errorf("%s is not in discovery", wanted)
		}
	}
	if _, err := restmapper.GetAPIGroupResources(client); err != nil {
		t.Errorf("REST mapper: %v", err)
	}
	// As the API server's aggregator asks.
	openAPI, err := client.RESTClient().Get().AbsPath("/openapi/v2").SetHeader("Accept", "application/json").Do(context.Background()).Raw()
	if err != nil || !json.Valid(openAPI) || !strings.Contains(string(openAPI), "ExternalMetricValueList") {
		t.Errorf("OpenAPI v2: %v %.200s", err, openAPI)
	}
	paths, err := client.OpenAPIV3().Paths()
	if err != nil {
		t.Fatalf("OpenAPI v3: %v", err)
	}
	for _, wanted := range []string{"apis/external.metrics.k8s.io/v1beta1", "apis/custom.metrics.k8s.io/v1beta2"} {
		document, found := paths[wanted]
		if !found {
			t.Errorf("%s is not in OpenAPI v3: %v", wanted, paths)
			continue
		}
		if _, err := document.Schema("application/json"); err != nil {
			t.Errorf("%s: %v", wanted, err)
		}
	}
	version := must[interface{ String() string }](t)(client.ServerVersion())
	if version.String() == "" {
		t.Error("no version")
	}
}

func TestExternal(t *testing.T) {
	for name, config := range map[string]*rest.Config{"json": config(t), "protobuf": protobuf(config(t))} {
		t.Run(name, func(t *testing.T) {
			client := must[external_metrics.ExternalMetricsClient](t)(external_metrics.NewForConfig(config)).NamespacedMetrics(namespace)
			list, err := client.List(inflight, selector(t, "name="+pool))
			if err != nil {
				t.Fatal(err)
			}
			if len(list.Items) != 1 {
				t.Fatalf("%d items", len(list.Items))
			}
			item := list.Items[0]
			if item.MetricName != inflight || item.MetricLabels["name"] != pool || item.Value.MilliValue() != 0 {
				t.Errorf("%+v", item)
			}
			if age := time.Since(item.Timestamp.Time); age < -time.Second || age > 10*time.Second {
				t.Errorf("age %v", age)
			}
			gke := "prometheus.googleapis.com|" + kvMean + "|gauge"
			list, err = client.List(gke, selector(t, "metric.labels.name="+pool))
			if err != nil || len(list.Items) != 1 || list.Items[0].MetricName != gke {
				t.Errorf("%v %v", list, err)
			}
			list, err = client.List("inference_pool_ready_pods", labels.Everything())
			if err != nil || len(list.Items) != 2 {
				t.Errorf("one item per pool: %v %v", list, err)
			}
		})
	}
}

func TestExternalErrors(t *testing.T) {
	client := must[external_metrics.ExternalMetricsClient](t)(external_metrics.NewForConfig(config(t))).NamespacedMetrics(namespace)
	_, err := client.List("inference_pool_average_kv_cache_utilisation", labels.Everything())
	if !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), kvMean) {
		t.Errorf("unknown metric: %v", err)
	}
	_, err = client.List(kvMean, selector(t, "name=dead"))
	if !apierrors.IsServiceUnavailable(err) || !strings.Contains(err.Error(), "default/dead") {
		t.Errorf("unreadable pool: %v", err)
	}
	_, err = client.List(kvMean, labels.Everything())
	if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "dead, llama") {
		t.Errorf("a mean over several pools: %v", err)
	}
	_, err = client.List(kvMean, selector(t, "flavour=sweet"))
	if !apierrors.IsBadRequest(err) {
		t.Errorf("unknown label: %v", err)
	}
	stranger := config(t)
	stranger.BearerToken = "wrong"
	_, err = must[external_metrics.ExternalMetricsClient](t)(external_metrics.NewForConfig(stranger)).NamespacedMetrics(namespace).List(inflight, labels.Everything())
	if !apierrors.IsUnauthorized(err) {
		t.Errorf("stranger: %v", err)
	}
}

// mapper knows the kinds that a cluster with the InferencePool CRD knows.
func mapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{{Version: "v1"}, {Group: poolKind.Group, Version: "v1"}})
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, meta.RESTScopeNamespace)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, meta.RESTScopeRoot)
	mapper.Add(poolKind.WithVersion("v1"), meta.RESTScopeNamespace)
	return mapper
}

func customClient(t *testing.T, config *rest.Config, version string) custom_metrics.MetricsInterface {
	t.Helper()
	if version == "preferred" {
		apis := custom_metrics.NewAvailableAPIsGetter(discovery.NewDiscoveryClientForConfigOrDie(config))
		return custom_metrics.NewForConfig(config, mapper(), apis).NamespacedMetrics(namespace)
	}
	group := schema.GroupVersion{Group: "custom.metrics.k8s.io", Version: version}
	return must[custom_metrics.CustomMetricsClient](t)(custom_metrics.NewForVersionForConfig(config, mapper(), group)).NamespacedMetrics(namespace)
}

func TestCustom(t *testing.T) {
	for _, version := range []string{"preferred", "v1beta1", "v1beta2"} {
		for name, config := range map[string]*rest.Config{"json": config(t), "protobuf": protobuf(config(t))} {
			t.Run(version+" "+name, func(t *testing.T) {
				client := customClient(t, config, version)
				value, err := client.GetForObject(poolKind, pool, inflight, labels.Everything())
				if err != nil {
					t.Fatal(err)
				}
				if value.DescribedObject.Name != pool || value.DescribedObject.Kind != "InferencePool" || value.Value.MilliValue() != 0 || value.Metric.Name != inflight {
					t.Errorf("%+v", value)
				}
				pods, err := client.GetForObjects(podKind, selector(t, "app=llama"), podQueue, labels.Everything())
				if err != nil {
					t.Fatal(err)
				}
				names := map[string]bool{}
				for _, item := range pods.Items {
					names[item.DescribedObject.Name] = true
				}
				if len(pods.Items) != 2 || !names["llama-0"] || !names["llama-1"] {
					t.Errorf("pods: %v", names)
				}
				pods, err = client.GetForObjects(podKind, selector(t, "app=llama,slot=a"), podQueue, labels.Everything())
				if err != nil || len(pods.Items) != 1 {
					t.Errorf("one pod: %v %v", pods, err)
				}
				if value, err = client.GetForObject(podKind, "llama-1", podQueue, labels.Everything()); err != nil || value.DescribedObject.Name != "llama-1" {
					t.Errorf("a pod by name: %v %v", value, err)
				}
				if _, err = client.GetForObject(poolKind, "dead", kvMean, labels.Everything()); !apierrors.IsServiceUnavailable(err) {
					t.Errorf("unreadable pool: %v", err)
				}
				if _, err = client.GetForObject(poolKind, "nope", kvMean, labels.Everything()); !apierrors.IsNotFound(err) {
					t.Errorf("unknown pool: %v", err)
				}
				if _, err = client.GetForObject(poolKind, pool, "nope", labels.Everything()); !apierrors.IsNotFound(err) {
					t.Errorf("unknown metric: %v", err)
				}
				if _, err = client.GetForObject(namespaceKind, namespace, "nope", labels.Everything()); !apierrors.IsNotFound(err) {
					t.Errorf("the namespace form: %v", err)
				}
			})
		}
	}
}
