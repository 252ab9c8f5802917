//! What an adapter is told when it starts.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// How the adapter answers. The default asks for nothing: each namespace its own pools, any cluster constant.
#[derive(Clone, Debug, Default)]
pub struct AdapterConfig {
    /// Whether a selector may choose pools of another namespace than the request's, which is the one that was authorised. Where it
    /// may, whoever can read metrics in one namespace can read them in all.
    pub allow_cross_namespace: bool,
    /// What the `resource.*` labels of the GKE dialect are compared with.
    pub resource: ResourceLabels,
    /// Where the time comes from.
    pub clock: Clock,
}

/// Constants of the GKE dialect (Cloud Monitoring's resource labels); one that is not set matches whatever is asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResourceLabels {
    /// `resource.labels.cluster` and `resource.labels.cluster_name`.
    pub cluster: Option<String>,
    /// `resource.labels.location`: region or zone.
    pub location: Option<String>,
    /// `resource.labels.project_id`.
    pub project_id: Option<String>,
    /// `resource.type`; Cloud Monitoring writes `prometheus_target`.
    pub resource_type: Option<String>,
}

/// The two clocks of an answer: ages are measured by one, written by the other.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The clock of samples.
    pub now_instant: fn() -> Instant,
    /// The time of day.
    pub now_wall: fn() -> Timestamp,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now_instant: Instant::now, now_wall: Timestamp::now }
    }
}

impl Clock {
    pub(crate) fn now(self) -> Moment {
        Moment { instant: (self.now_instant)(), wall: (self.now_wall)() }
    }
}

/// One moment by both clocks: a request has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    wall: Timestamp,
}

impl Moment {
    /// How long ago `earlier` was.
    pub(crate) fn age(self, earlier: Instant) -> Duration {
        self.instant.saturating_duration_since(earlier)
    }

    /// `earlier` in RFC 3339, UTC, whole seconds.
    pub(crate) fn wall(self, earlier: Instant) -> String {
        let at = self.wall.checked_sub(self.age(earlier)).unwrap_or(self.wall);
        Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_goes_back_by_the_age_and_has_whole_seconds() {
        let instant = Instant::now();
        let wall = "2026-01-01T00:00:10.7Z".parse().unwrap();
        let moment = Moment { instant: instant + Duration::from_secs(60), wall };
        assert_eq!(moment.wall(moment.instant), "2026-01-01T00:00:10Z");
        assert_eq!(moment.wall(instant), "2025-12-31T23:59:10Z");
        assert_eq!(moment.wall(moment.instant - Duration::from_millis(800)), "2026-01-01T00:00:09Z");
        // A sample from the future is from now.
        assert_eq!(moment.wall(moment.instant + Duration::from_secs(5)), "2026-01-01T00:00:10Z");
    }
}
