//! Documents in one ConfigMap: every replica reads it through a watch, the one that leads writes it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use weir_k8s::Leader;
use weir_serving::{LookFailure, ObjectWatch, Seen};

use crate::documents::Texts;
use crate::ledger::Ledger;

/// How often it is looked at whether there is something to write.
const LOOK: Duration = Duration::from_secs(5);
/// Between two writes.
const APART: Duration = Duration::from_secs(30);

/// Which ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigMapSettings {
    /// Its namespace: weir's own.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Keeps a ledger's documents in a ConfigMap.
#[derive(Debug)]
pub struct ConfigMapKeeper {
    api: Api<ConfigMap>,
    settings: ConfigMapSettings,
    ledger: Ledger,
    leader: Leader,
    /// The object as last seen; none of an inner one: it does not exist; none at all: it is not known how it is now.
    seen: Option<Option<ConfigMap>>,
    written_at: Option<Instant>,
    failure: Option<String>,
}

impl ConfigMapKeeper {
    /// Keeps what `ledger` learns; writes only while `leader` leads.
    pub fn new(client: Client, settings: ConfigMapSettings, ledger: Ledger, leader: Leader) -> Self {
        ledger.kept_in(format!("ConfigMap {}/{}", settings.namespace, settings.name));
        let api = Api::namespaced(client, &settings.namespace);
        Self { api, settings, ledger, leader, seen: None, written_at: None, failure: None }
    }

    /// Reads every change at once, and writes at most every 30 s what says something new, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut watch = ObjectWatch::new(self.api.clone(), &self.settings.name);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                seen = watch.next() => self.sees(seen),
                _ = looks.tick() => self.write().await,
            }
        }
    }

    fn sees(&mut self, seen: Seen<ConfigMap>) {
        let object = match seen {
            Seen::Object(object) => Some(*object),
            Seen::Absent => None,
            Seen::Failed(failure) => {
                self.ledger.metrics().readable(false);
                return self.fails("read", &failure, "get, list and watch");
            }
        };
        self.works();
        self.ledger.metrics().readable(true);
        let none = BTreeMap::new();
        self.ledger.read(object.as_ref().and_then(|object| object.data.as_ref()).unwrap_or(&none));
        self.seen = Some(object);
    }

    /// Writes what was learned, if this replica is the one to do so, over the version that was seen.
    async fn write(&mut self) {
        let due = self.written_at.is_none_or(|at| at.elapsed() >= APART);
        let Some(seen) = self.seen.clone().filter(|_| due && self.leader.leads()) else { return };
        let Some(texts) = self.ledger.to_write() else { return };
        self.written_at = Some(Instant::now());
        let (api, leader) = (self.api.clone(), self.leader.clone());
        let object = self.object(seen.as_ref(), &texts);
        let name = self.settings.name.clone();
        let exists = seen.is_some();
        let write = async {
            if exists {
                api.replace(&name, &PostParams::default(), &object).await
            } else {
                api.create(&PostParams::default(), &object).await
            }
        };
        let result = match leader.write(write).await {
            Ok(Ok(written)) => {
                self.works();
                self.ledger.wrote(&texts);
                self.seen = Some(Some(written));
                "written"
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                // Somebody else wrote: the watch tells what.
                self.seen = None;
                "conflict"
            }
            Ok(Err(error)) => {
                let failure = LookFailure::of(&error);
                self.fails("written", &failure, if exists { "update" } else { "create" });
                if failure.is_forbidden() { "forbidden" } else { "failed" }
            }
            Err(_not_leading) => "not_leading",
        };
        self.ledger.metrics().wrote(result);
    }

    fn object(&self, seen: Option<&ConfigMap>, texts: &Texts) -> ConfigMap {
        let data = Some(texts.clone());
        match seen {
            Some(seen) => ConfigMap { data, ..seen.clone() },
            None => ConfigMap {
                metadata: ObjectMeta {
                    name: Some(self.settings.name.clone()),
                    namespace: Some(self.settings.namespace.clone()),
                    labels: Some(BTreeMap::from([("app.kubernetes.io/name".to_owned(), "weir".to_owned())])),
                    ..ObjectMeta::default()
                },
                data,
                ..ConfigMap::default()
            },
        }
    }

    fn works(&mut self) {
        if self.failure.take().is_some() {
            info!(config_map = self.settings.name, "what was learned can be read and written again");
        }
    }

    /// Once for each failure that differs from the one before.
    fn fails(&mut self, what: &str, failure: &LookFailure, verbs: &str) {
        let told = failure.to_string();
        if self.failure.as_ref() == Some(&told) {
            return;
        }
        let ConfigMapSettings { namespace, name } = &self.settings;
        if failure.is_forbidden() {
            error!(
                namespace,
                name,
                error = told,
                "what was learned cannot be {what}, required replicas go on without: in {namespace} the service account needs {verbs} of \
                 configmaps (the Role weir of manifests/base/rbac.yaml has that), or start with --no-required-replicas"
            );
        } else {
            error!(
                namespace,
                name,
                error = told,
                "what was learned cannot be {what}, required replicas go on without; tried again"
            );
        }
        self.failure = Some(told);
    }
}
