//! `global-strict-fairness-policy`

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Head, Line};
use crate::flow::ordering::Key;

/// All requests, by the ordering.
#[derive(Debug, Default)]
pub(super) struct GlobalStrict(BTreeSet<Key>);

impl Line for GlobalStrict {
    fn add(&mut self, _flow: &Arc<str>, key: Key) {
        self.0.insert(key);
    }

    fn remove(&mut self, _flow: &Arc<str>, key: Key) {
        self.0.remove(&key);
    }

    fn head(&self, _last: Option<&Arc<str>>) -> Option<Head> {
        self.0.first().map(|key| Head { turn: None, key: *key })
    }
}
