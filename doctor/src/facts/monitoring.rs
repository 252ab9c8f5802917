//! What tells a Prometheus which pages to read.

use super::facts;
use super::meta::{Meta, Selector};
use super::workload::IntOrName;

facts! {
    /// `monitoring.coreos.com` ServiceMonitor.
    ServiceMonitor { metadata: Meta, spec: ServiceMonitorSpec, }
    ServiceMonitorSpec { selector: Selector, namespace_selector: NamespaceSelector, endpoints: Vec<MonitorEndpoint>, }
    /// `monitoring.coreos.com` PodMonitor.
    PodMonitor { metadata: Meta, spec: PodMonitorSpec, }
    PodMonitorSpec { selector: Selector, namespace_selector: NamespaceSelector, pod_metrics_endpoints: Vec<MonitorEndpoint>, }
    NamespaceSelector { any: bool, match_names: Vec<String>, }
    MonitorEndpoint {
        port: String,
        target_port: IntOrName,
        path: String,
        honor_labels: bool,
        bearer_token_secret: SecretKey,
        authorization: Authorization,
    }
    Authorization { credentials: SecretKey, }
    SecretKey { name: String, key: String, }

    /// `monitoring.googleapis.com` PodMonitoring.
    PodMonitoring { metadata: Meta, spec: PodMonitoringSpec, }
    PodMonitoringSpec { selector: Selector, endpoints: Vec<PodMonitoringEndpoint>, }
    PodMonitoringEndpoint { port: IntOrName, path: String, }

    /// `monitoring.coreos.com` Prometheus: which monitors it takes.
    Prometheus { metadata: Meta, spec: PrometheusSpec, }
    PrometheusSpec { service_monitor_selector: Selector, pod_monitor_selector: Selector, }

    /// A Secret by name.
    SecretName { namespace: String, name: String, present: bool, }
}

impl NamespaceSelector {
    /// Whether a monitor in namespace `own`, with this selector or none, looks into `namespace`.
    pub(crate) fn looks_into(selector: Option<&Self>, own: &str, namespace: &str) -> bool {
        let names = selector.and_then(|selector| selector.match_names.as_ref());
        selector.and_then(|selector| selector.any).unwrap_or(false)
            || names.map_or_else(|| namespace == own, |names| names.iter().any(|name| name == namespace))
    }
}

impl MonitorEndpoint {
    /// The name of the Secret with its token.
    pub(crate) fn secret(&self) -> Option<&str> {
        let credentials = self.authorization.as_ref().and_then(|authorization| authorization.credentials.as_ref());
        credentials.or(self.bearer_token_secret.as_ref())?.name.as_deref()
    }
}
