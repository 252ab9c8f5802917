//! What weir knows of a pool: pages in, loads stored, snapshots out.
//!
//! Pure: no sockets, no Kubernetes; the clock is an argument. Data flows through the modules in the order below.
//!
//! 1. [`pool`]: what a pool and its endpoints are, as discovery describes them.
//! 2. [`page`]: bytes of an exposition page to samples.
//! 3. [`engine`]: samples to one [`EndpointLoad`], by the table of each engine's names.
//! 4. [`picker`]: what an endpoint picker's page says of the requests it holds; [`stream`]: what weir tells weir.
//! 5. [`store`](Datastore): loads into cells, one writer each ([`EndpointWriter`], [`PickerWriter`]), topology by one
//!    [`TopologyWriter`].
//! 6. [`start`](StartPhase): how long its pods take to start.
//! 7. [`snapshot`](PoolSnapshot): a pool at one moment, computed when read, with [`selector`] and [`Saturation`].
//! 8. [`RequiredWriter`]: where the replicas that a pool requires are written down by whoever computes them.
//! 9. [`catalog`]: every family served of a pool, with unit, meaning and the right target type.
//! 10. [`codes`]: one name for each cause of trouble, in logs, metrics and `weir doctor`.

pub mod catalog;
mod cells;
pub mod codes;
mod demand;
pub mod engine;
pub mod latency;
mod load;
mod measurement;
mod options;
pub mod page;
pub mod picker;
pub mod pool;
mod saturation;
pub mod selector;
mod snapshot;
mod start;
mod store;
pub mod stream;

pub use cells::Endpoint;
pub use demand::RequiredWriter;
pub use load::{
    Combined, Counters, EndpointLoad, EndpointStatus, Failure, FailureKind, LoadSignal, LoraLoad, PickerLoad, PickerStatus,
    UnitLoad, Unused,
};
pub use measurement::{Measured, Measurement, Unknown};
pub use options::RequiredOptions;
pub use pool::{EndpointAddress, EndpointSpec, EndpointState, MetricsSource, PoolId, PoolSpec, Scheme};
pub use saturation::{Saturation, Thresholds};
pub use selector::Selector;
pub use snapshot::{Coverage, EndpointView, FRESH_AT_LEAST, FRESH_AT_MOST, Freshness, PickerView, PoolSnapshot};
pub use start::{PodStart, START_BUCKETS, SeenStart, StartHistogram, StartPhase, StartTimes, StartingPod};
pub use store::{
    Datastore, EndpointKey, EndpointWriter, PickerKey, PickerWriter, PoolChanges, TopologyChange, TopologyWriter, datastore,
};
