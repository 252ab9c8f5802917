//! From a kubeconfig, or from inside a cluster, to a client.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT as USER_AGENT_HEADER;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;

/// What every request to the API server calls itself.
pub const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// Without a connection by then there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection over which nothing was heard for so long is dead. Longer than any watch here lasts.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Which cluster is meant.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientOptions {
    /// A kubeconfig; none: the pod's service account inside a cluster, else `$KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; none: its current one.
    pub context: Option<String>,
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The kubeconfig that was named cannot be used.
    #[error("kubeconfig {}: {reason}: name another with --kubeconfig, or another of its contexts with --context", path.display())]
    Kubeconfig {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither in a cluster nor a kubeconfig in the usual places.
    #[error(
        "no cluster is known: not in a pod (KUBERNETES_SERVICE_HOST is not set), and the kubeconfig of $KUBECONFIG or ~/.kube/config cannot \
         be used ({reason}): name one with --kubeconfig, or run without a cluster with --pools"
    )]
    NoCluster {
        /// What is wrong with the kubeconfig.
        reason: String,
    },
    /// In a pod whose service account cannot be used.
    #[error(
        "in a cluster, but the pod's service account cannot be used ({reason}): set `automountServiceAccountToken: true`, or name a \
         kubeconfig with --kubeconfig"
    )]
    InCluster {
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates or credentials that the configuration names cannot be used.
    #[error("the client of {cluster} cannot be built ({reason}): look at the certificates and credentials of the kubeconfig")]
    Client {
        /// The cluster's URL.
        cluster: String,
        /// What is wrong.
        reason: String,
    },
}

impl ClientOptions {
    /// Builds a client; asks nothing of the cluster yet. Its `default_namespace` is the service account's or the context's.
    ///
    /// # Errors
    /// [`ClientError`], with the file and the way out.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        Self::client(self.config().await?)
    }

    /// The same, but every request is sent once: kube sends it again after 429, 503 and 504, so that whoever asks never hears of a pod
    /// behind the API server's proxy that refuses.
    ///
    /// # Errors
    /// As [`ClientOptions::connect`].
    pub async fn connect_without_retries(&self) -> Result<Client, ClientError> {
        let mut config = self.config().await?;
        config.default_retry = false;
        Self::client(config)
    }

    fn client(mut config: Config) -> Result<Client, ClientError> {
        config.headers.push((USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT)));
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        // Or the time a connection lay idle would count against the next answer.
        config.reset_reader_on_write = true;
        let cluster = config.cluster_url.to_string();
        Client::try_from(config).map_err(|error| ClientError::Client { cluster, reason: told(&error) })
    }

    async fn config(&self) -> Result<Config, ClientError> {
        let context = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        if let Some(path) = &self.kubeconfig {
            let refuse = |error: &dyn std::error::Error| ClientError::Kubeconfig { path: path.clone(), reason: told(error) };
            let file = Kubeconfig::read_from(path).map_err(|error| refuse(&error))?;
            return Config::from_custom_kubeconfig(file, &context).await.map_err(|error| refuse(&error));
        }
        // A context is one of a kubeconfig's.
        if self.context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return Config::incluster_env().map_err(|error| ClientError::InCluster { reason: told(&error) });
        }
        Config::from_kubeconfig(&context).await.map_err(|error| ClientError::NoCluster { reason: told(&error) })
    }
}

/// An error and its causes, each once.
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters:\n- name: c\n  cluster: { server: \"http://127.0.0.1:1\" }\n\
                        contexts:\n- name: a\n  context: { cluster: c, user: u, namespace: team-a }\nusers:\n- name: u\n  user: { token: t }\n";

    async fn connect(content: &str, context: Option<&str>) -> Result<Client, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, content).unwrap();
        let options = ClientOptions { kubeconfig: Some(path), context: context.map(str::to_owned) };
        options.connect().await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_kubeconfig_becomes_a_client() {
        assert_eq!(connect(GOOD, None).await.unwrap().default_namespace(), "team-a");
        assert_eq!(connect(GOOD, Some("a")).await.unwrap().default_namespace(), "team-a");
    }

    #[tokio::test]
    async fn errors_name_the_file_and_the_way_out() {
        let absent = ClientOptions { kubeconfig: Some("/nowhere/config".into()), context: None };
        let Err(error) = absent.connect().await else { panic!("a client without a file") };
        let error = error.to_string();
        assert!(error.starts_with("kubeconfig /nowhere/config: ") && error.contains("--kubeconfig"), "{error}");
        let Err(error) = connect(GOOD, Some("b")).await else { panic!("a client of a context that is not there") };
        assert!(error.contains("load current context: b: ") && error.contains("--context"), "{error}");
        let Err(error) = connect(": no YAML [", None).await else { panic!("a client of garbage") };
        assert!(error.starts_with("kubeconfig "), "{error}");
    }
}
