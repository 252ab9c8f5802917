//! One certificate authority for all replicas, kept in a Secret: each issues its own certificate, clients trust one
//! bundle.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    authority_secret::{AuthorityContent, Terms},
    complaint::Complaint,
    watch::{LookFailure, ObjectWatch, Seen},
};
use crate::{Blocker, CertificateAuthority, Health, ServeError, ServingMetrics};

const CHECK: &str = "serving-certificate-authority";
const SUBJECT: &str = "serving_authority";
const COMPONENT: &str = "kubernetes";
/// Time for one write.
const WRITE: Duration = Duration::from_secs(10);
/// Between attempts at a write that failed.
const RETRY: Duration = Duration::from_secs(5);
/// The longest time without a look at the clock.
const LOOK: Duration = Duration::from_secs(3600);
const SHORTEST_LIFETIME: Duration = Duration::from_secs(3600);

/// Where the authority is kept, and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedAuthoritySettings {
    /// Namespace of the Secret: weir's own.
    pub namespace: String,
    /// Its name. An absent one is created, an empty one filled.
    pub secret: String,
    /// Validity of an authority, one year. After two thirds of it the next one is made. At least an hour.
    pub lifetime: Duration,
    /// Between trusting a new authority and issuing with it, 10 min: so long may a new bundle take to reach clients.
    pub settle: Duration,
}

impl SharedAuthoritySettings {
    /// The defaults, for this Secret.
    pub fn new(namespace: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            secret: secret.into(),
            lifetime: Duration::from_secs(365 * 24 * 3600),
            settle: Duration::from_secs(600),
        }
    }

    fn check(&self) -> Result<(), ServeError> {
        let problem = if self.namespace.is_empty() || self.secret.is_empty() {
            "the Secret needs a namespace and a name"
        } else if self.lifetime < SHORTEST_LIFETIME {
            "the authority's lifetime must be at least an hour"
        } else if self.lifetime < self.settle * 6 {
            "the authority's lifetime must be at least six times the settling time"
        } else {
            return Ok(());
        };
        Err(ServeError::Setting { setting: "shared certificate authority", problem: problem.into() })
    }

    fn terms(&self) -> Terms {
        Terms { lifetime: self.lifetime, settle: self.settle }
    }
}

/// Every name by which the cluster's clients know a Service; `SERVICE.NAMESPACE.svc` is what the API server checks.
pub fn service_names(service: &str, namespace: &str) -> Vec<String> {
    ["", ".NS", ".NS.svc", ".NS.svc.cluster.local"].map(|form| format!("{service}{}", form.replace("NS", namespace))).into()
}

/// The authority as of now. Before the Secret was read it is one of this process alone, which no client trusts: probes
/// that verify nothing are answered, everyone else waits for readiness.
pub struct SharedAuthority {
    settings: SharedAuthoritySettings,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    issuing: ArcSwap<CertificateAuthority>,
    generation: watch::Sender<u64>,
    bundle: watch::Sender<Option<Arc<str>>>,
    metrics: ServingMetrics,
}

impl fmt::Debug for SharedAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedAuthority").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What is known of the Secret.
enum Stored {
    /// Nothing yet, or nothing usable.
    Unknown,
    /// It does not exist.
    Absent,
    /// It is there without content.
    Empty(Box<Secret>),
    /// Its content is in use.
    Read(Box<Secret>, AuthorityContent),
}

impl SharedAuthority {
    /// An authority by the wall clock `now`; [`SharedAuthority::keep`] brings in the Secret.
    ///
    /// # Errors
    /// [`ServeError::Setting`] for settings out of range.
    pub fn new(
        settings: SharedAuthoritySettings,
        now: impl Fn() -> SystemTime + Send + Sync + 'static,
        metrics: ServingMetrics,
    ) -> Result<Self, ServeError> {
        settings.check()?;
        Ok(Self {
            issuing: ArcSwap::from_pointee(CertificateAuthority::new(now())?),
            settings,
            now: Box::new(now),
            generation: watch::Sender::new(0),
            bundle: watch::Sender::new(None),
            metrics,
        })
    }

    /// What clients must trust, PEM: all authorities that issue, did, or will soon. None before the Secret was read.
    pub fn bundle(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.bundle.subscribe()
    }

    /// Raised when another authority issues.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The authority that issues.
    pub(crate) fn issuing(&self) -> Arc<CertificateAuthority> {
        self.issuing.load_full()
    }

    /// A task that reads the Secret, makes it where it is absent or empty, follows it and rotates the authority in it,
    /// until `stop`. From this call on `health` is not ready before there is an authority; after that the last good one
    /// stays in use.
    pub fn keep(
        self: &Arc<Self>,
        client: Client,
        health: &Health,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let keeper = Keeper {
            api: Api::namespaced(client, &self.settings.namespace),
            complaint: Complaint::about("serving certificate authority"),
            blocker: Some(health.block(CHECK)),
            stored: Stored::Unknown,
            last: None,
            shared: Arc::clone(self),
        };
        async move {
            stop.run_until_cancelled(keeper.run()).await;
        }
    }

    fn adopt(&self, content: &AuthorityContent, last: Option<&AuthorityContent>) -> Result<(), String> {
        if last == Some(content) {
            return Ok(());
        }
        let bundle: Arc<str> = content.bundle().into();
        if !last.is_some_and(|last| last.issues_as(content)) {
            self.issuing.store(Arc::new(content.authority()?));
            self.generation.send_modify(|generation| *generation += 1);
        }
        self.bundle.send_replace(Some(bundle));
        self.metrics.authority_ends("serving_ca", content.not_after());
        self.metrics.reloaded(COMPONENT, SUBJECT, "loaded");
        tracing::info!(secret = %self.named(), "serving certificate authority loaded");
        Ok(())
    }

    fn named(&self) -> String {
        format!("{}/{}", self.settings.namespace, self.settings.secret)
    }

    fn wrong(&self, problem: &str) -> String {
        format!("Secret {}: {problem}; delete the Secret, and weir makes a new one, or name another one", self.named())
    }

    fn failed(&self, doing: &str, failure: &LookFailure) -> String {
        let SharedAuthoritySettings { namespace, secret, .. } = &self.settings;
        let way_out = if failure.is_forbidden() {
            format!(
                "; let weir do it with a Role in namespace {namespace}: apiGroups [\"\"], resources [\"secrets\"], resourceNames [\"{secret}\"], verbs [\"get\", \"list\", \"watch\", \"update\"], and [\"create\"] without resourceNames, or bring an empty Secret of this name: weir fills it"
            )
        } else {
            String::new()
        };
        format!("Secret {} cannot be {doing}: {failure}{way_out}", self.named())
    }
}

/// The task behind [`SharedAuthority::keep`].
struct Keeper {
    shared: Arc<SharedAuthority>,
    api: Api<Secret>,
    complaint: Complaint,
    blocker: Option<Blocker>,
    stored: Stored,
    /// What is in use, also when the Secret is gone.
    last: Option<AuthorityContent>,
}

impl Keeper {
    async fn run(mut self) {
        let mut object = ObjectWatch::new(self.api.clone(), &self.shared.settings.secret);
        let mut wake = Instant::now() + LOOK;
        loop {
            tokio::select! {
                seen = object.next() => match seen {
                    Seen::Object(secret) => self.read(secret),
                    Seen::Absent => self.stored = Stored::Absent,
                    Seen::Failed(failure) => {
                        self.complain(self.shared.failed("read", &failure));
                        continue;
                    }
                },
                () = sleep_until(wake) => {}
            }
            wake = Instant::now() + self.write_what_is_due().await;
        }
    }

    fn read(&mut self, secret: Box<Secret>) {
        let empty = std::collections::BTreeMap::new();
        let outcome = AuthorityContent::read(secret.data.as_ref().unwrap_or(&empty));
        let outcome = outcome.and_then(|content| match content {
            None => Ok(Stored::Empty(secret)),
            Some(content) => {
                self.shared.adopt(&content, self.last.as_ref())?;
                self.last = Some(content.clone());
                Ok(Stored::Read(secret, content))
            }
        });
        match outcome {
            Ok(stored) => {
                if matches!(stored, Stored::Read(..)) {
                    self.blocker = None;
                    self.complaint.works();
                }
                self.stored = stored;
            }
            Err(problem) => {
                self.shared.metrics.reloaded(COMPONENT, SUBJECT, "refused");
                // It is somebody else's, perhaps: never overwritten.
                self.stored = Stored::Unknown;
                self.complain(self.shared.wrong(&problem));
            }
        }
    }

    /// Writes once, if something is due. Gives the time until it is worth looking again.
    async fn write_what_is_due(&mut self) -> Duration {
        let now = (self.shared.now)();
        let terms = self.shared.settings.terms();
        let first = |last: &Option<AuthorityContent>| match last {
            // The Secret was deleted: what clients trust already is put back.
            Some(last) => Ok(last.clone()),
            None => AuthorityContent::new(now, terms),
        };
        let content = match &self.stored {
            Stored::Unknown => return LOOK,
            Stored::Absent | Stored::Empty(_) => first(&self.last),
            Stored::Read(_, content) => match content.step(now, terms) {
                Ok(None) => return content.due(terms).duration_since(now).unwrap_or(RETRY).clamp(Duration::from_secs(1), LOOK),
                Ok(Some(next)) => Ok(next),
                Err(error) => Err(error),
            },
        };
        let content = match content {
            Ok(content) => content,
            Err(error) => {
                self.complain(error.to_string());
                return RETRY;
            }
        };
        match timeout(WRITE, self.write(&content)).await {
            Ok(Ok(secret)) => {
                tracing::info!(secret = %self.shared.named(), "serving certificate authority written");
                self.read(Box::new(secret));
                // Another step may be due already.
                RETRY
            }
            // Another replica was first: its content comes by the watch.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => RETRY,
            Ok(Err(error)) => {
                self.complain(self.shared.failed("written", &LookFailure::of(&error)));
                RETRY
            }
            Err(_elapsed) => {
                self.complain(format!("Secret {} cannot be written: no answer within {} s", self.shared.named(), WRITE.as_secs()));
                RETRY
            }
        }
    }

    /// Creates the Secret, or replaces exactly the version that was read: of several replicas one wins.
    async fn write(&self, content: &AuthorityContent) -> kube::Result<Secret> {
        let data: std::collections::BTreeMap<String, ByteString> = content.write();
        let name = &self.shared.settings.secret;
        let parameters = PostParams { field_manager: Some(crate::FIELD_MANAGER.into()), ..PostParams::default() };
        match &self.stored {
            Stored::Empty(secret) | Stored::Read(secret, _) => {
                let secret = Secret { data: Some(data), ..(**secret).clone() };
                self.api.replace(name, &parameters, &secret).await
            }
            Stored::Absent | Stored::Unknown => {
                let metadata = ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some([("app.kubernetes.io/managed-by".to_owned(), "weir".to_owned())].into()),
                    ..ObjectMeta::default()
                };
                let kind = Some("kubernetes.io/tls".to_owned());
                self.api.create(&parameters, &Secret { metadata, data: Some(data), type_: kind, ..Secret::default() }).await
            }
        }
    }

    fn complain(&self, problem: String) {
        self.complaint.failed(&problem);
        if let Some(blocker) = &self.blocker {
            blocker.because(problem);
        }
    }
}
