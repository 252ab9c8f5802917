//! Discovery and scraping: the only writer of the datastore.
//!
//! A source of discovery says which pools are wanted, over a `watch` channel; the [`Collector`] keeps one loop per endpoint that
//! reads its page and writes what it shows. Nothing is decided here, and nothing is read back.
//!
//! 1. [`WantedPool`]: what a source of discovery hands over: a pool, and how its pages may be reached ([`Access`]).
//! 2. [`PoolsFile`]: discovery without a cluster, from `pools.yaml`, followed while it changes.
//! 3. [`fetch_page`]: one page over HTTP, bounded in time and bytes; each thing that can go wrong is a [`ScrapeFailure`] that names
//!    the address, what happened and the way out.
//! 4. [`Collector`]: a loop per endpoint, spread over the interval, each on its own clock.

mod access;
mod file;

mod tls;

mod connection;

mod failure;

mod body;
mod fetch;

mod metrics;
mod schedule;
mod scrape;

mod collector;

pub use access::{Access, WantedPool};
pub use collector::{Collector, CollectorConfig, ConfigError};
pub use failure::ScrapeFailure;
pub use fetch::{FetchConfig, FetchedPage, fetch_page};
pub use file::{Loaded, PoolsFile, PoolsFileError, PoolsFileWatcher, Problem};

#[cfg(test)]
mod tests;
