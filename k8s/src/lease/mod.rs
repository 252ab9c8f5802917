//! One of several replicas leads, by a Lease of coordination.k8s.io/v1, with the timing of Kubernetes' own controllers.
//!
//! Own code, since the crates that fit this client judge a holder by the times in the object, so by other machines' clocks, and take
//! a lease over without the version they saw. Here `election` decides (pure), `leader` guards the writes, and this file asks the API
//! server. A leader that cannot renew stops by itself at the renew deadline, which is earlier than anyone else may begin.

mod election;
mod leader;
mod metrics;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use rand::{Rng, RngExt};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use election::{Election, Proposal};
pub use leader::{Leader, NotLeading};
pub use metrics::LeaseMetrics;

/// Which Lease, whose, and the timing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaseSettings {
    /// Namespace of the Lease: weir's own.
    pub namespace: String,
    /// Its name. An absent one is created.
    pub name: String,
    /// Name of this process in it, unlike any other's: [`LeaseSettings::identity`].
    pub identity: String,
    /// A holder that was not heard of for so long is gone, 15 s; whole seconds.
    pub lease_duration: Duration,
    /// A leader that could not renew for so long leads no more, 10 s. The difference to the duration is what a write may take.
    pub renew_deadline: Duration,
    /// Between attempts, 2 s.
    pub retry_period: Duration,
}

/// Settings under which two could lead at once.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("lease {namespace}/{name}: {problem}")]
pub struct LeaseSettingsError {
    namespace: String,
    name: String,
    problem: &'static str,
}

impl LeaseSettings {
    /// The defaults, for this Lease.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// An identity that no other process has, also not the next one in the same pod: the pod's name and a random number.
    pub fn identity(pod: &str, rng: &mut impl Rng) -> String {
        format!("{pod}_{:016x}", rng.random::<u64>())
    }

    fn check(&self) -> Result<(), LeaseSettingsError> {
        let problem = if self.identity.is_empty() {
            "the identity of this process must not be empty"
        } else if self.lease_duration.as_secs() == 0 || self.lease_duration.subsec_nanos() != 0 {
            "the lease duration must be a whole number of seconds, at least one"
        } else if self.lease_duration.as_secs() > 3600 {
            "the lease duration must be at most an hour"
        } else if self.renew_deadline >= self.lease_duration {
            "the renew deadline must be shorter than the lease duration, or two could lead at once"
        } else if self.retry_period.is_zero() || self.retry_period * 2 > self.renew_deadline {
            "the retry period must be above zero and at most half of the renew deadline"
        } else {
            return Ok(());
        };
        Err(LeaseSettingsError { namespace: self.namespace.clone(), name: self.name.clone(), problem })
    }
}

/// A running candidacy.
#[derive(Debug)]
pub struct Leadership {
    leader: Leader,
    task: AbortOnDropHandle<()>,
}

impl Leadership {
    /// Stands for election until `stop`; then lets the writes that have begun finish, and releases the Lease so that the next
    /// replica takes over at its next look. Needs `get` and `update` of the Lease, and `create` in its namespace.
    ///
    /// # Errors
    /// [`LeaseSettingsError`] for timing under which two could lead at once.
    pub fn run(
        client: Client,
        settings: LeaseSettings,
        metrics: LeaseMetrics,
        stop: CancellationToken,
    ) -> Result<Self, LeaseSettingsError> {
        settings.check()?;
        let (term, receiver) = watch::channel(None);
        let leader = Leader {
            term: receiver,
            writes: TaskTracker::new(),
            stop,
            longest_write: settings.lease_duration.saturating_sub(settings.renew_deadline),
        };
        let candidate = Candidate {
            api: Api::namespaced(client, &settings.namespace),
            label: format!("{}/{}", settings.namespace, settings.name),
            election: Election::new(&settings),
            settings,
            metrics,
            term,
            leader: leader.clone(),
            holder: None,
            failure: None,
        };
        Ok(Self { leader, task: AbortOnDropHandle::new(tokio::spawn(candidate.run())) })
    }

    /// The handle that work holds on to.
    pub fn leader(&self) -> Leader {
        self.leader.clone()
    }

    /// Waits, after `stop`, until the Lease is released.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the election ended by itself");
        }
    }
}

struct Candidate {
    api: Api<Lease>,
    label: String,
    settings: LeaseSettings,
    election: Election,
    metrics: LeaseMetrics,
    term: watch::Sender<Option<Instant>>,
    leader: Leader,
    /// Who else holds it, as last told in the log.
    holder: Option<String>,
    failure: Option<String>,
}

impl Candidate {
    async fn run(mut self) {
        let stop = self.leader.stop.clone();
        self.metrics.leads(&self.label, false);
        while !stop.is_cancelled() {
            let began = Instant::now();
            if self.election.expire(began) {
                self.tell();
            }
            self.attempt().await;
            self.tell();
            let retry = began + self.settings.retry_period;
            let wake = self.election.term_end().map_or(retry, |end| retry.min(end));
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(wake) => {}
            }
        }
        self.release().await;
    }

    /// One look or write, and a second where the first met a newer version. Ends with the term at the latest.
    async fn attempt(&mut self) {
        let longest = Instant::now() + self.settings.renew_deadline / 2;
        let end = self.election.term_end().map_or(longest, |end| end.min(longest));
        let result = match timeout(end.saturating_duration_since(Instant::now()), self.ask()).await {
            Ok(Ok(result)) => {
                if self.failure.take().is_some() {
                    tracing::info!(lease = self.label, "the Lease can be read and written again");
                }
                result
            }
            Ok(Err(error)) => {
                self.election.outdated();
                self.fails(error.to_string());
                "failed"
            }
            Err(_elapsed) => {
                // The write may have arrived.
                self.election.outdated();
                self.fails("no answer in time".into());
                "failed"
            }
        };
        self.metrics.attempted(&self.label, result);
        self.election.expire(Instant::now());
    }

    async fn ask(&mut self) -> Result<&'static str, kube::Error> {
        for _ in 0..2 {
            if !self.election.knows_version() {
                let lease = self.api.get_opt(&self.settings.name).await?;
                self.election.see(lease, Instant::now());
            }
            let had_term = self.election.term_end().is_some();
            let sent = Instant::now();
            let answer = match self.election.propose(sent, Timestamp::now()) {
                Proposal::Create(lease) => match self.api.create(&PostParams::default(), &lease).await {
                    // No such namespace.
                    Err(error) if is(&error, 404) => return Err(error),
                    answer => answer,
                },
                Proposal::Replace(lease) => self.api.replace(&self.settings.name, &PostParams::default(), &lease).await,
                Proposal::Wait { holder } => {
                    if self.holder.as_ref() != Some(&holder) {
                        tracing::info!(lease = self.label, holder, "another leads");
                        self.holder = Some(holder);
                    }
                    return Ok("waiting");
                }
            };
            match answer {
                Ok(lease) => {
                    self.holder = None;
                    self.election.won(lease, sent);
                    return Ok(if had_term { "renewed" } else { "acquired" });
                }
                // Somebody was faster, or the Lease was deleted: look at once.
                Err(error) if is(&error, 404) || is(&error, 409) => self.election.outdated(),
                Err(error) => return Err(error),
            }
        }
        Ok("conflict")
    }

    fn fails(&mut self, error: String) {
        if self.failure.as_ref() != Some(&error) {
            let lease = &self.label;
            tracing::error!(
                lease,
                error,
                "the Lease cannot be read or written: the identity needs get, update and create of leases in its namespace"
            );
            self.failure = Some(error);
        }
    }

    /// Tells everybody where the leadership stands.
    fn tell(&self) {
        let end = self.election.term_end();
        let had = self.term.send_replace(end);
        self.metrics.leads(&self.label, end.is_some());
        match (had, end) {
            (None, Some(_)) => tracing::info!(lease = self.label, identity = self.settings.identity, "leading"),
            (Some(_), None) => {
                let why = self.failure.as_deref().unwrap_or("another holds the Lease");
                tracing::warn!(lease = self.label, why, "leading no more");
            }
            _ => {}
        }
    }

    async fn release(mut self) {
        // What has begun ends first: another may begin as soon as the Lease is free.
        self.leader.writes.close();
        self.leader.writes.wait().await;
        let held = self.election.term_end().is_some();
        self.election.resign();
        self.term.send_replace(None);
        self.metrics.leads(&self.label, false);
        let release = async {
            for _ in 0..2 {
                if let Some(lease) = self.election.release(Timestamp::now()) {
                    match self.api.replace(&self.settings.name, &PostParams::default(), &lease).await {
                        Ok(_) => return Ok(true),
                        Err(error) if is(&error, 409) => {}
                        Err(error) => return Err(error),
                    }
                }
                let lease = self.api.get_opt(&self.settings.name).await?;
                self.election.see(lease, Instant::now());
            }
            Ok(false)
        };
        match timeout(self.settings.renew_deadline / 2, release).await {
            Ok(Ok(true)) => {
                self.metrics.attempted(&self.label, "released");
                tracing::info!(lease = self.label, "released: the next replica leads at once");
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) if held => {
                tracing::warn!(lease = self.label, %error, "not released: the next replica waits for its end")
            }
            Err(_elapsed) if held => tracing::warn!(lease = self.label, "not released: no answer in time"),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
