//! What the store is made of: pools, and the cells in which what was read of their endpoints and pickers is kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::demand::RequiredReplicas;
use crate::latency::{EndpointLatencies, PickerLatencies, TokenRates};
use crate::load::{EndpointStatus, PickerStatus};
use crate::options::RequiredOptions;
use crate::pool::{EndpointSpec, MetricsSource, PoolId};
use crate::start::{SeenStart, StartMemory, StartingPod};

/// A pool in the store.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    pub(crate) metrics: MetricsSource,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) pickers: Option<Vec<Arc<Picker>>>,
    pub(crate) pending: usize,
    /// Pods that are not ready.
    pub(crate) unready: Arc<[StartingPod]>,
    pub(crate) hold: bool,
    pub(crate) options: RequiredOptions,
    pub(crate) memory: Arc<PoolMemory>,
}

/// What stays with a pool while its endpoints and pickers come and go.
#[derive(Debug)]
pub(crate) struct PoolMemory {
    /// When the pool was first seen, or an endpoint that has left was last active, whichever is later.
    pub(crate) active_before: ArcSwap<Instant>,
    /// Whether a picker ever told how many requests it holds: from then on silence of a picker means unknown.
    pub(crate) held_shown: AtomicBool,
    pub(crate) version: AtomicU64,
    pub(crate) written: Notify,
    pub(crate) held_rises: watch::Sender<u64>,
    pub(crate) starts: Arc<StartMemory>,
    pub(crate) required: ArcSwapOption<RequiredReplicas>,
    /// What weir pickers measured, by their names.
    pub(crate) measured: ArcSwap<PickersMeasured>,
}

/// What weir pickers measured, by their names.
pub(crate) type PickersMeasured = BTreeMap<Arc<str>, Arc<PickerLatencies>>;

/// What is worked out about an endpoint every 10 s or so, beside what every page says.
#[derive(Debug, Default)]
pub(crate) struct SloCell {
    pub(crate) latencies: ArcSwapOption<EndpointLatencies>,
    pub(crate) tokens: ArcSwapOption<TokenRates>,
}

impl PoolMemory {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            active_before: ArcSwap::from_pointee(now),
            held_shown: AtomicBool::new(false),
            version: AtomicU64::new(0),
            written: Notify::new(),
            held_rises: watch::Sender::new(0),
            starts: Arc::default(),
            required: ArcSwapOption::empty(),
            measured: ArcSwap::default(),
        }
    }

    pub(crate) fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
        self.written.notify_waiters();
    }
}

/// One endpoint: what was discovered, and the cell with what was read. The cell outlives changes of readiness and labels.
#[derive(Debug)]
pub struct Endpoint {
    /// As discovered.
    pub spec: EndpointSpec,
    pub(crate) cell: Arc<ArcSwap<EndpointStatus>>,
    pub(crate) start: Option<Arc<SeenStart>>,
    pub(crate) slo: Arc<SloCell>,
}

impl Endpoint {
    /// All that is known of it, as of one moment.
    pub fn status(&self) -> Arc<EndpointStatus> {
        self.cell.load_full()
    }

    /// The start of its pod, where the beginning of that was seen.
    pub fn start(&self) -> Option<&Arc<SeenStart>> {
        self.start.as_ref()
    }
}

#[derive(Debug)]
pub(crate) struct Picker {
    pub(crate) name: Arc<str>,
    pub(crate) cell: Arc<ArcSwap<PickerStatus>>,
}

impl Picker {
    pub(crate) fn status(&self) -> Arc<PickerStatus> {
        self.cell.load_full()
    }
}
