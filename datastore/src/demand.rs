//! The replicas that a pool requires, as whoever computes them writes them down: one cell per pool.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::measurement::{Measured, Measurement, Unknown};
use crate::pool::PoolId;
use crate::snapshot::FRESH_AT_MOST;
use crate::store::Pools;

/// What was computed last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequiredReplicas {
    /// Replicas, or why they are not known.
    level: Result<u32, Arc<str>>,
    /// When that was so.
    at: Instant,
}

impl RequiredReplicas {
    /// As it is told at `now`: not at all once it is too old.
    pub(crate) fn told(&self, now: Instant) -> Measurement {
        let age = now.saturating_duration_since(self.at);
        if age > FRESH_AT_MOST {
            let cause =
                format!("they were computed last {:.0} s ago: the process is overloaded, or its log says why", age.as_secs_f64());
            return Err(Unknown::Required { cause: cause.into() });
        }
        match &self.level {
            Ok(replicas) => Ok(Measured { value: f64::from(*replicas), as_of: self.at }),
            Err(cause) => Err(Unknown::Required { cause: cause.clone() }),
        }
    }
}

/// Writes how many replicas each pool requires. There is one.
#[derive(Debug)]
pub struct RequiredWriter {
    pub(crate) pools: Arc<ArcSwap<Pools>>,
}

impl RequiredWriter {
    /// At `now` the pool requires so many replicas, by a computation that is `age` old; or the cause why nobody knows. A pool that is
    /// gone has no cell.
    pub fn write(&mut self, pool: &PoolId, level: Result<u32, Arc<str>>, age: Duration, now: Instant) {
        if let Some(pool) = self.pools.load().get(pool) {
            let at = now.checked_sub(age).unwrap_or(now);
            pool.memory.required.store(Some(Arc::new(RequiredReplicas { level, at })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::PoolSpec;
    use crate::selector::Selector;
    use crate::store::datastore;

    #[test]
    fn a_level_is_told_while_it_is_fresh_and_of_the_whole_pool_only() {
        let (store, mut topology) = datastore();
        let mut writer = topology.required_writer();
        let (id, now) = (PoolId::new("default", "p"), Instant::now());
        let told = |selector: &str, at| {
            let snapshot = store.snapshot(&id, &Selector::parse(selector).unwrap(), at).unwrap();
            snapshot.required_replicas().map(|measured| measured.value).map_err(|unknown| unknown.to_string())
        };
        writer.write(&id, Ok(3), Duration::ZERO, now);
        topology.upsert(PoolSpec::empty(id.clone()), now);
        assert!(told("", now).unwrap_err().contains("are not computed here"));
        writer.write(&id, Ok(3), Duration::from_secs(1), now);
        assert_eq!(told("", now), Ok(3.0));
        assert_eq!(told("", now + Duration::from_secs(4)), Ok(3.0));
        assert!(told("", now + Duration::from_secs(5)).unwrap_err().contains("computed last 6 s ago"));
        assert!(told("gpu=a", now).unwrap_err().contains("whole pool"));
        writer.write(&id, Err("nothing tells".into()), Duration::ZERO, now);
        assert_eq!(told("", now), Err("nothing tells".to_owned()));
    }
}
