//! Reads of the metrics API as an autoscaler does them: through the API server of a test's cluster, as an administrator.

use std::time::Duration;

use reqwest::{Certificate, Client, Identity};
use serde_json::Value;
use weir_tests::cluster::Cluster;

/// How long a read may take: as long as the API server gives an aggregated API.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a client keeps its connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Connections {
    /// One connection for all reads.
    Kept,
    /// A new one for each.
    New,
}

/// A caller of the API server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    server: String,
}

impl Api {
    /// A caller with the certificate of the cluster's kubeconfig.
    pub(crate) fn new(cluster: &Cluster, connections: Connections) -> Result<Self, String> {
        weir_serving::install_crypto_provider();
        let kubeconfig = cluster.path("kubeconfig");
        let read = |path: std::path::PathBuf| std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));
        let identity = [read(kubeconfig.with_extension("crt"))?, read(kubeconfig.with_extension("key"))?].concat();
        let authority = read(kubeconfig.with_file_name("cluster-ca.crt"))?;
        let words = |error: reqwest::Error| error.to_string();
        let mut builder = Client::builder()
            .no_proxy()
            .identity(Identity::from_pem(&identity).map_err(words)?)
            .tls_certs_only([Certificate::from_pem(&authority).map_err(words)?])
            .timeout(PATIENCE);
        if connections == Connections::New {
            builder = builder.http1_only().pool_max_idle_per_host(0);
        }
        let server = cluster.about("server").as_str().ok_or("the cluster has no server")?.to_owned();
        Ok(Self { client: builder.build().map_err(words)?, server })
    }

    /// The value of an external metric of one pool; an error is what an autoscaler gets, a list without an item included.
    pub(crate) async fn external(&self, namespace: &str, metric: &str, pool: &str) -> Result<i64, String> {
        let list = self.list(&format!("{namespace}/{metric}?labelSelector=name%3D{pool}")).await?;
        let value = list.pointer("/items/0/value").and_then(Value::as_str);
        value.and_then(|value| value.parse().ok()).ok_or_else(|| format!("no whole number: {list}"))
    }

    /// An answer of the external metrics API.
    pub(crate) async fn list(&self, path: &str) -> Result<Value, String> {
        let url = format!("{}/apis/external.metrics.k8s.io/v1beta1/namespaces/{path}", self.server);
        let mut response = self.client.get(url).send().await.map_err(|error| format!("{error:?}"))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| format!("{error:?}"))? {
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8_lossy(&body);
        if status != 200 {
            return Err(format!("{status}: {body}"));
        }
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    }
}
