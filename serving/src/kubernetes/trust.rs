//! Whom the cluster lets vouch for callers, as of now.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use rustls::{
    DistinguishedName, RootCertStore,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    complaint::Complaint,
    configuration::{self, AuthenticationConfiguration, ProxyHeaders},
    watch::{LookFailure, ObjectWatch, Seen},
};
use crate::{Blocker, Health, ServingMetrics, peer_certificate::end_of_bundle};

/// Name of the readiness check, and `subject` of the reload metric.
const CHECK: &str = "authentication-configuration";
const SUBJECT: &str = "authentication_configuration";
/// `component` in metrics that concern all servers of the process.
const COMPONENT: &str = "kubernetes";

/// Client certificates that the cluster trusts: those of its users and of the API server itself, as ConfigMap
/// `kube-system/extension-apiserver-authentication` names them. Clones share one state; [`ClusterTrust::follow`]
/// keeps it true.
#[derive(Clone)]
pub struct ClusterTrust {
    state: Arc<State>,
}

struct State {
    current: ArcSwapOption<Trust>,
    generation: watch::Sender<u64>,
    next: AtomicU64,
    provider: Arc<CryptoProvider>,
    metrics: ServingMetrics,
}

impl fmt::Debug for ClusterTrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClusterTrust").field("generation", &*self.state.generation.borrow()).finish_non_exhaustive()
    }
}

/// One version of the configuration, ready for use.
pub(super) struct Trust {
    pub(super) generation: u64,
    pub(super) client: Option<Authority>,
    pub(super) front_proxy: Option<FrontProxyTrust>,
}

pub(super) struct FrontProxyTrust {
    pub(super) authority: Authority,
    pub(super) allowed_names: Vec<String>,
    pub(super) headers: ProxyHeaders,
}

/// Authorities of one purpose.
pub(super) struct Authority(Arc<dyn ClientCertVerifier>);

impl Authority {
    fn new(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        verifier.map(Self).map_err(|error| error.to_string())
    }

    /// Whether the chain, leaf first, ends here, and its leaf is for clients.
    pub(super) fn verify(&self, chain: &[CertificateDer<'static>], now: SystemTime) -> Result<(), String> {
        let (leaf, intermediates) = chain.split_first().ok_or("no certificate")?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.0.verify_client_cert(leaf, intermediates, now).map(|_| ()).map_err(|error| error.to_string())
    }

    fn hints(&self) -> impl Iterator<Item = DistinguishedName> {
        self.0.root_hint_subjects().iter().cloned()
    }
}

impl ClusterTrust {
    /// Trusts nobody yet.
    pub fn new(metrics: ServingMetrics) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let state = State {
            current: ArcSwapOption::empty(),
            generation: watch::Sender::new(0),
            next: AtomicU64::new(1),
            provider,
            metrics,
        };
        Self { state: Arc::new(state) }
    }

    /// A task that reads the ConfigMap and follows it until `stop`. From this call on `health` is not ready before it
    /// was read once; after that the last good version stays in force whatever happens to it.
    pub fn follow(&self, client: Client, health: &Health, stop: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        self.clone().run(client, health.block(CHECK), stop)
    }

    async fn run(self, client: Client, blocker: Blocker, stop: CancellationToken) {
        let api: Api<ConfigMap> = Api::namespaced(client, configuration::NAMESPACE);
        let mut object = ObjectWatch::new(api, configuration::NAME);
        let mut blocker = Some(blocker);
        let complaint = Complaint::about("authentication configuration");
        loop {
            let seen = tokio::select! {
                () = stop.cancelled() => return,
                seen = object.next() => seen,
            };
            let outcome = match seen {
                Seen::Object(map) => self.load(&map).inspect_err(|_| {
                    self.state.metrics.reloaded(COMPONENT, SUBJECT, "refused");
                }),
                Seen::Absent => Err(absent()),
                Seen::Failed(failure) => Err(look_failed(&failure)),
            };
            match outcome {
                Ok(()) => {
                    blocker = None;
                    complaint.works();
                    self.state.metrics.reloaded(COMPONENT, SUBJECT, "loaded");
                    tracing::info!(generation = *self.state.generation.borrow(), "authentication configuration loaded");
                }
                Err(problem) => {
                    complaint.failed(&problem);
                    if let Some(blocker) = &blocker {
                        blocker.because(problem);
                    }
                }
            }
        }
    }

    /// Takes over one version of the ConfigMap.
    fn load(&self, map: &ConfigMap) -> Result<(), String> {
        let empty = std::collections::BTreeMap::new();
        let data = map.data.as_ref().unwrap_or(&empty);
        let AuthenticationConfiguration { client_ca, front_proxy } =
            AuthenticationConfiguration::read(data).map_err(|error| error.to_string())?;
        let provider = &self.state.provider;
        let client = client_ca.map(|roots| Authority::new(roots, provider)).transpose()?;
        let front_proxy = match front_proxy {
            None => None,
            Some(configured) => Some(FrontProxyTrust {
                authority: Authority::new(configured.ca, provider)?,
                allowed_names: configured.allowed_names,
                headers: configured.headers,
            }),
        };
        if front_proxy.is_none() {
            tracing::warn!("the API server publishes no front proxy: requests that it forwards are those of nobody");
        }
        for (subject, key) in [("client_ca", "client-ca-file"), ("front_proxy_ca", "requestheader-client-ca-file")] {
            if let Some(end) = data.get(key).and_then(|pem| end_of_bundle(pem)) {
                self.state.metrics.authority_ends(subject, end);
            }
        }
        let generation = self.state.next.fetch_add(1, Ordering::Relaxed);
        self.state.current.store(Some(Arc::new(Trust { generation, client, front_proxy })));
        self.state.generation.send_replace(generation);
        Ok(())
    }

    pub(super) fn current(&self) -> Option<Arc<Trust>> {
        self.state.current.load_full()
    }

    /// Raised by every change.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.state.generation.subscribe()
    }

    /// Names of the authorities, for clients that have several certificates.
    pub(crate) fn hints(&self) -> Vec<DistinguishedName> {
        let Some(trust) = self.current() else {
            return Vec::new();
        };
        let front_proxy = trust.front_proxy.iter().flat_map(|proxy| proxy.authority.hints());
        trust.client.iter().flat_map(Authority::hints).chain(front_proxy).collect()
    }
}

fn absent() -> String {
    format!(
        "ConfigMap {}/{} does not exist: the Kubernetes API server writes it at its start; run weir with --token-file or --client-ca-file instead where there is none",
        configuration::NAMESPACE,
        configuration::NAME
    )
}

fn look_failed(failure: &LookFailure) -> String {
    let way_out = if failure.is_forbidden() {
        "; let weir read it with a RoleBinding in namespace kube-system from Role extension-apiserver-authentication-reader to weir's ServiceAccount"
    } else {
        ""
    };
    format!("ConfigMap {}/{} cannot be read: {failure}{way_out}", configuration::NAMESPACE, configuration::NAME)
}
