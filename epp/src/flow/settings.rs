//! What of flow control can be set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Fairness, Ordering, UsageLimit};

/// Bytes of bodies that wait in one band: upstream's default.
const BAND_BYTES: u64 = 1_000_000_000;
/// Requests that wait in one band: llm-d's default; v1.5.0 has none.
const LLM_D_BAND_REQUESTS: u64 = 5000;
/// How long a request waits: llm-d's default; v1.5.0 has none.
const LLM_D_TTL: Duration = Duration::from_secs(60);
/// How long a request waits for the first endpoint: Envoy's own patience, unless it is told otherwise.
const NO_ENDPOINT_TTL: Duration = Duration::from_secs(300);
/// How long after the first endpoint is ready what waits is let go: gateways learn of it a moment after the picker.
const SETTLE: Duration = Duration::from_millis(100);

/// Limits, times and policies.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSettings {
    /// Whether requests wait while the pool is full (`featureGates: [flowControl]`). Without it they are placed at once, or shed.
    pub while_full: bool,
    /// Whether they wait while the pool has no endpoint.
    pub hold_empty: HoldEmpty,
    /// Requests that wait in all; none: as many as the bands allow.
    pub most_requests: Option<u64>,
    /// Bytes of their bodies; none: as many as the bands allow.
    pub most_bytes: Option<u64>,
    /// How long a request waits while the pool is full; none: until its client goes.
    pub ttl: Option<Duration>,
    /// How long a request waits while the pool has no endpoint. It begins anew each time the pool becomes empty, as the other does
    /// when it no longer is.
    pub no_endpoint_ttl: Option<Duration>,
    /// How long what waited for the first endpoint goes on waiting once it is ready.
    pub settle: Duration,
    /// Bands of their own, by priority.
    pub bands: BTreeMap<i32, BandSettings>,
    /// Every other band.
    pub default_band: BandSettings,
    /// Every other band below 0.
    pub default_negative_band: BandSettings,
    /// Up to which saturation each band is served.
    pub usage: UsageLimit,
}

/// One band: all requests of one priority.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BandSettings {
    /// Requests that wait there; none: any number.
    pub most_requests: Option<u64>,
    /// Bytes of their bodies; none: any number.
    pub most_bytes: Option<u64>,
    /// Which flow is next.
    pub fairness: Fairness,
    /// Which request of a flow is next.
    pub ordering: Ordering,
}

/// Whether requests wait for a pool that has no ready endpoint.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HoldEmpty {
    /// If something will bring an endpoint: pods that are not ready or have no address yet, the pool's own word, or an
    /// [`Expectation`]. Else they are refused at once.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// Never.
    Never,
}

/// What is known to bring the pool its first endpoint, beside pods that are there already.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Expectation {
    /// Nothing.
    #[default]
    Nothing,
    /// Something: what it is, for people.
    Endpoint(Arc<str>),
    /// Pods are wanted, which brings one unless those that are there are stuck; what wants them, for people.
    Pods(Arc<str>),
    /// Nothing, though there is something that might: what keeps it, for people.
    Hindered(Arc<str>),
}

impl HoldEmpty {
    /// All, with the names they are configured by.
    pub const NAMES: [(&str, Self); 3] = [("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];

    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

impl Default for BandSettings {
    fn default() -> Self {
        Self { most_requests: None, most_bytes: Some(BAND_BYTES), fairness: Fairness::default(), ordering: Ordering::default() }
    }
}

impl BandSettings {
    /// llm-d's defaults.
    pub fn llm_d() -> Self {
        Self { most_requests: Some(LLM_D_BAND_REQUESTS), ..Self::default() }
    }
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self::of(BandSettings::default(), None, NO_ENDPOINT_TTL)
    }
}

impl FlowSettings {
    /// llm-d's defaults.
    pub fn llm_d() -> Self {
        Self::of(BandSettings::llm_d(), Some(LLM_D_TTL), LLM_D_TTL)
    }

    fn of(band: BandSettings, ttl: Option<Duration>, no_endpoint_ttl: Duration) -> Self {
        Self {
            while_full: false,
            hold_empty: HoldEmpty::default(),
            most_requests: None,
            most_bytes: None,
            ttl,
            no_endpoint_ttl: Some(no_endpoint_ttl),
            settle: SETTLE,
            bands: BTreeMap::new(),
            default_band: band,
            default_negative_band: band,
            usage: UsageLimit::default(),
        }
    }

    /// The band of `priority`.
    pub fn band(&self, priority: i32) -> BandSettings {
        let default = if priority < 0 { self.default_negative_band } else { self.default_band };
        self.bands.get(&priority).copied().unwrap_or(default)
    }
}
