//! Whether there is a pool to pick from, and why not.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_collector::{Obstacles, WantedPools};
use weir_datastore::{Datastore, PoolId, codes};
use weir_serving::{Blocker, Health};

/// The pool of a picker, followed.
pub(super) struct PoolWatch {
    pool: PoolId,
    wanted: WantedPools,
    /// What a cluster keeps back, and whether everything there was listed.
    cluster: Option<(watch::Receiver<Obstacles>, watch::Receiver<bool>)>,
    /// What to do where the pool is not there.
    way_out: String,
    known: Gauge,
    health: Health,
    blocker: Option<Blocker>,
    /// Cancelled once it is known why there is no pool.
    missing: CancellationToken,
}

/// How long requests may wait at the start, at most: less than a gateway gives a connection.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Ends once requests for `pool` can be placed; or once it is known why not, or nothing is known for too long.
pub(super) async fn first_look(store: Datastore, pool: PoolId, missing: CancellationToken) {
    let mut generation = store.generation();
    let placed = async {
        while store.changes(&pool).is_none() {
            if generation.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = placed => {}
        () = missing.cancelled() => {}
        () = sleep(FIRST_LOOK) => {}
    }
}

impl PoolWatch {
    /// Not ready from now on until the pool is known, and whenever it is gone. `way_out`: what to do where it is not there.
    pub(super) fn new(
        pool: PoolId,
        wanted: WantedPools,
        cluster: Option<(watch::Receiver<Obstacles>, watch::Receiver<bool>)>,
        way_out: String,
        health: &Health,
        registry: &mut Registry,
    ) -> Self {
        let known = Gauge::default();
        registry.register("weir_epp_pool_known", "Whether the picker's pool is there and could be read", known.clone());
        let mut watch = Self {
            pool,
            wanted,
            cluster,
            way_out,
            known,
            health: health.clone(),
            blocker: None,
            missing: CancellationToken::new(),
        };
        watch.look();
        watch
    }

    /// Cancelled once it is known why there is no pool, if there is none.
    pub(super) fn missing(&self) -> CancellationToken {
        self.missing.clone()
    }

    /// Follows the pool until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut told: Option<String> = None;
        loop {
            let missing = self.look();
            match (&missing, &told) {
                (Some(reason), before) if before.as_ref() != Some(reason) => {
                    let code = self.code();
                    warn!(pool = %self.pool, code, reason, "no requests can be placed")
                }
                (None, Some(_)) => info!(pool = %self.pool, "the pool is known, requests are placed"),
                _ => {}
            }
            told = missing;
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed(&mut self.wanted) => {}
                () = cluster_changed(&mut self.cluster) => {}
            }
        }
    }

    /// Makes readiness what it is; why it is not.
    fn look(&mut self) -> Option<String> {
        let known = self.wanted.borrow_and_update().iter().any(|wanted| wanted.spec.id == self.pool);
        self.known.set(i64::from(known));
        if known {
            self.blocker = None;
            return None;
        }
        let reason = self.reason();
        self.blocker.get_or_insert_with(|| self.health.block("inference-pool")).because(reason.as_str());
        Some(reason)
    }

    /// What is to be mended where the pool is not there; what else is in the way has been told of by whoever met it.
    fn code(&self) -> Option<&'static str> {
        let is_looked_for =
            self.cluster.as_ref().is_none_or(|(obstacles, synced)| obstacles.borrow().is_empty() && *synced.borrow());
        is_looked_for.then_some(codes::PICKER_POOL_NAME)
    }

    fn reason(&mut self) -> String {
        let pool = &self.pool;
        let (told, synced) = match &mut self.cluster {
            None => (Vec::new(), true),
            Some((obstacles, synced)) => {
                let obstacles = obstacles.borrow_and_update();
                let told: Vec<_> = obstacles.iter().map(|(resource, obstacle)| format!("{resource}: {obstacle}")).collect();
                (told, *synced.borrow_and_update())
            }
        };
        if told.is_empty() && !synced {
            return format!("InferencePool {pool} and its pods have not been listed yet");
        }
        self.missing.cancel();
        match (&self.cluster, told.is_empty()) {
            (None, _) => format!("there is no pool {pool}: {}", self.way_out),
            (_, false) => format!("InferencePool {pool} is not known: {}", told.join("; ")),
            (_, true) => format!("there is no InferencePool {pool}: {}", self.way_out),
        }
    }
}

/// Ends once there is something new; never where there can be nothing any more.
async fn changed<T>(receiver: &mut watch::Receiver<Arc<T>>) {
    if receiver.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn cluster_changed(cluster: &mut Option<(watch::Receiver<Obstacles>, watch::Receiver<bool>)>) {
    let Some((obstacles, synced)) = cluster else { return std::future::pending().await };
    let gone = tokio::select! {
        changed = obstacles.changed() => changed.is_err(),
        changed = synced.changed() => changed.is_err(),
    };
    if gone {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use weir_collector::WantedPool;
    use weir_datastore::PoolSpec;

    use super::*;

    #[tokio::test]
    async fn readiness_follows_the_pool_and_what_is_in_the_way() {
        let pool = PoolId::new("n", "p");
        let (pools, wanted) = watch::channel(Arc::default());
        let (obstacles, synced) = (watch::Sender::new(Obstacles::default()), watch::Sender::new(false));
        let (health, mut registry) = (Health::new(), Registry::default());
        let cluster = Some((obstacles.subscribe(), synced.subscribe()));
        let mut watch = PoolWatch::new(pool.clone(), wanted, cluster, "create it".to_owned(), &health, &mut registry);
        assert_eq!(health.not_ready(), ["inference-pool"]);
        assert!(!watch.missing().is_cancelled());
        assert!(watch.look().unwrap().contains("not been listed yet"));
        obstacles.send_modify(|known| drop(known.insert("pods", "may not be read: add a rule".to_owned())));
        assert_eq!(watch.look().unwrap(), "InferencePool n/p is not known: pods: may not be read: add a rule");
        assert!(watch.missing().is_cancelled());
        obstacles.send_replace(Obstacles::default());
        synced.send_replace(true);
        assert_eq!(watch.look().unwrap(), "there is no InferencePool n/p: create it");
        let spec = |id: &PoolId| WantedPool::from(PoolSpec::empty(id.clone()));
        pools.send_replace(Arc::new(vec![spec(&PoolId::new("n", "q"))]));
        assert!(watch.look().is_some(), "another pool");
        let task = tokio::spawn(watch.run(CancellationToken::new()));
        for known in [true, false, true] {
            pools.send_replace(Arc::new(if known { vec![spec(&pool)] } else { Vec::new() }));
            while health.not_ready().is_empty() != known {
                tokio::task::yield_now().await;
            }
        }
        task.abort();
    }
}
