//! `round-robin-fairness-policy`

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::{Head, Line};
use crate::flow::ordering::Key;

/// The requests of each flow, by the ordering. Flows without any are not there.
#[derive(Debug, Default)]
pub(super) struct RoundRobin(BTreeMap<Arc<str>, BTreeSet<Key>>);

impl Line for RoundRobin {
    fn add(&mut self, flow: &Arc<str>, key: Key) {
        self.0.entry(flow.clone()).or_default().insert(key);
    }

    fn remove(&mut self, flow: &Arc<str>, key: Key) {
        let Some(requests) = self.0.get_mut(flow) else { return };
        requests.remove(&key);
        if requests.is_empty() {
            self.0.remove(flow);
        }
    }

    fn head(&self, last: Option<&Arc<str>>) -> Option<Head> {
        let after = last.and_then(|last| self.0.range::<Arc<str>, _>((Bound::Excluded(last), Bound::Unbounded)).next());
        let anew = after.is_none();
        let (flow, requests) = after.or_else(|| self.0.first_key_value())?;
        Some(Head { turn: Some((anew, flow.clone())), key: *requests.first()? })
    }
}
