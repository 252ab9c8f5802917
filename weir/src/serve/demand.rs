//! The replicas that pools require: computed by every replica, what is learned kept by the one that leads.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use tokio::time::Instant;
use tracing::info;
use weir_datastore::RequiredOptions;
use weir_demand::{ConfigMapKeeper, ConfigMapSettings, DemandMetrics, FileKeeper, Ledger, RecordMetrics, RecordTarget, Recorder};
use weir_k8s::{Leadership, LeaseMetrics, LeaseSettings};

use super::Line;
use super::cluster::Cluster;
use crate::args::DemandArguments;

impl Line {
    /// Computes the levels, kept nowhere; none where that was begun before.
    pub(super) fn levels(&mut self, options: RequiredOptions) -> Option<Ledger> {
        let writer = self.required.take()?;
        let ledger = Ledger::new(options, DemandMetrics::register(&mut self.registry));
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.tasks.spawn(ledger.clone().run(self.datastore.clone(), writer, Instant::now(), unix, self.drained.clone()));
        Some(ledger)
    }

    /// Records what arrives.
    pub(super) fn record(&mut self, targets: &[RecordTarget]) {
        if targets.is_empty() {
            return;
        }
        let metrics = RecordMetrics::register(&mut self.registry);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for target in targets {
            let recorder = Recorder::new(target.clone(), metrics.clone());
            self.tasks.spawn(recorder.run(self.datastore.clone(), Instant::now(), unix, self.drained.clone()));
        }
    }

    /// Computes the levels as the arguments say, and keeps what is learned where they say.
    pub(super) fn demand(&mut self, arguments: &DemandArguments, cluster: Option<&Cluster>) -> anyhow::Result<Option<Ledger>> {
        if arguments.no_required_replicas {
            return Ok(None);
        }
        let Some(ledger) = self.levels(arguments.options()) else { return Ok(None) };
        if let Some(file) = &arguments.learned {
            self.tasks.spawn(FileKeeper::new(file.clone(), ledger.clone()).run(self.drained.clone()));
            return Ok(Some(ledger));
        }
        let in_a_pod = || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        match (cluster, &arguments.learned_namespace) {
            (Some(cluster), Some(namespace)) => self.keep(arguments, cluster, namespace, ledger.clone())?,
            (Some(cluster), None) if in_a_pod() => {
                let namespace = cluster.client.default_namespace().to_owned();
                self.keep(arguments, cluster, &namespace, ledger.clone())?;
            }
            (Some(_), None) => info!(
                "what is learned for required replicas is kept nowhere: outside of a pod --learned-namespace NAMESPACE or --learned FILE \
                 says where"
            ),
            (None, _) => {
                info!(
                    "what is learned for required replicas is kept nowhere, and begins anew with a restart: --learned FILE keeps it"
                )
            }
        }
        Ok(Some(ledger))
    }

    /// Keeps what is learned in the ConfigMap of all replicas, and stands for election as the one that writes it.
    fn keep(&mut self, arguments: &DemandArguments, cluster: &Cluster, namespace: &str, ledger: Ledger) -> anyhow::Result<()> {
        let name = &arguments.learned_config_map;
        let identity = LeaseSettings::identity(&arguments.identity, &mut rand::make_rng::<StdRng>());
        let lease = LeaseSettings::new(namespace, name, identity);
        let metrics = LeaseMetrics::register(&mut self.registry);
        let stop = self.drained.clone();
        let leadership = Leadership::run(cluster.client.clone(), lease, metrics, stop.clone())?;
        let settings = ConfigMapSettings { namespace: namespace.to_owned(), name: name.clone() };
        let keeper = ConfigMapKeeper::new(cluster.client.clone(), settings, ledger, leadership.leader());
        self.tasks.spawn(async move {
            keeper.run(stop).await;
            leadership.ended().await;
        });
        Ok(())
    }
}
