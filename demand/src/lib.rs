//! How many replicas each pool requires: `inference_pool_required_replicas`.
//!
//! The arithmetic is [`weir_hpa::required`]. Here the datastore's snapshots become its input once a second ([`observe`]), its answer
//! goes back into the datastore, and what it learns is kept where every replica of weir reads it.
//!
//! 1. [`observe`]: a snapshot as one second of a pool, pure; [`fingerprint`]: what its servers are.
//! 2. [`documents`]: what is kept, its size bounded, pure.
//! 3. [`Ledger`]: all pools, their levels and their documents.
//! 4. [`Ledger::run`]: a turn of every pool each second.
//! 5. [`ConfigMapKeeper`], [`FileKeeper`]: where documents are kept; [`DemandMetrics`] says how that goes.
//! 6. [`router`]: `/api/v1/pools/{namespace}/{name}/demand`, the number with its arithmetic and evidence.
//! 7. [`Recorder`]: what arrives, as a trace to be replayed.

mod config_map;
#[cfg(test)]
mod config_map_tests;
pub mod documents;
mod file;
pub mod fingerprint;
mod ledger;
mod metrics;
pub mod observe;
mod pool;
mod record;
mod show;
#[cfg(test)]
mod tests;

pub use config_map::{ConfigMapKeeper, ConfigMapSettings};
pub use file::{FileError, FileKeeper};
pub use ledger::Ledger;
pub use metrics::DemandMetrics;
pub use record::{RecordMetrics, RecordTarget, Recorder};
pub use show::router;
