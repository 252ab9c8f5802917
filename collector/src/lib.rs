//! Discovery and scraping: the only writer of the datastore.
//!
//! A source of discovery says which pools are wanted, over a `watch` channel; the [`Collector`] keeps one loop per endpoint that
//! reads its page and writes what it shows. Nothing is decided here, and nothing is read back.
//!
//! 1. [`WantedPool`]: what a source of discovery hands over: a pool, and how its pages may be reached ([`Access`]).
//! 2. [`PoolsFile`]: discovery without a cluster, from `pools.yaml`, followed while it changes.
//! 3. [`KubeDiscovery`]: discovery in a cluster: InferencePools, their pods and pickers, followed by watches.
//! 4. [`fetch_page`]: one page over HTTP, bounded in time and bytes; each thing that can go wrong is a [`ScrapeFailure`] that names
//!    the address, what happened and the way out.
//! 5. `stream`, `picker`: what other weirs tell of a pool, instead of reading it a second time, and what its pickers hold.
//! 6. [`Collector`]: a loop per endpoint, spread over the interval, each on its own clock: often while the endpoint works, as its
//!    page or [`Activity`] says; for the wanted series alone where a trial has shown that the server answers that rightly
//!    ([`Restrict`]).

mod access;
mod activity;
mod file;
mod kube;

pub mod tls;

mod client;
mod connection;

mod failure;

mod body;
mod fetch;

mod counted;
mod crowd;
mod metrics;
mod restrict;
mod schedule;

mod asking;
mod scrape;

mod stream;

mod picker;

mod collector;

pub use self::kube::{
    KubeDiscovery, KubeDiscoveryConfig, Obstacles, PickerPages, PodMetrics, PodsScope, PoolGroups, Promise, RequestRules, Scope,
};
pub use access::{Access, Restrict, WantedPicker, WantedPool, WantedPools};
pub use activity::{Activity, EndpointActivity};
pub use collector::{Collector, CollectorConfig, ConfigError};
pub use failure::ScrapeFailure;
pub use fetch::{FetchConfig, FetchedPage, fetch_page};
pub use file::{Loaded, PoolsFile, PoolsFileError, PoolsFileWatcher, Problem};

#[cfg(test)]
mod tests;
