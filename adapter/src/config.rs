//! What an adapter is told when it starts.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::authorize::SharedAuthorizer;
use crate::groups::{GroupVersion, Groups};

/// How the adapter answers. The default serves both groups and asks for nothing: each namespace its own pools, any cluster
/// constant.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    /// Whether `external.metrics.k8s.io` is served. Switched off it is nowhere: not in discovery, not in the OpenAPI documents.
    pub external: bool,
    /// Whether `custom.metrics.k8s.io` is served.
    pub custom: bool,
    /// Whether a selector of an external metric may choose pools of another namespace than the request's, which is the one that was
    /// authorised. Where it may, `authorizer` is asked for each such namespace.
    pub allow_cross_namespace: bool,
    /// Who may read other namespaces, where `allow_cross_namespace` lets anyone. The default lets everyone: whoever can read
    /// metrics in one namespace can then read them in all.
    pub authorizer: SharedAuthorizer,
    /// What the `resource.*` labels of the GKE dialect are compared with.
    pub resource: ResourceLabels,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            external: true,
            custom: true,
            allow_cross_namespace: false,
            authorizer: SharedAuthorizer::default(),
            resource: ResourceLabels::default(),
            clock: Clock::default(),
        }
    }
}

impl AdapterConfig {
    /// The versions that are served, each group's preferred one first.
    pub fn versions(&self) -> Vec<GroupVersion> {
        self.groups().served().flat_map(|group| group.versions.iter().map(|version| **version)).collect()
    }

    pub(crate) fn groups(&self) -> Groups {
        Groups { external: self.external, custom: self.custom }
    }
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

    /// `earlier` by the time of day, in whole seconds.
    pub(crate) fn wall(self, earlier: Instant) -> Wall {
        let at = self.wall.checked_sub(self.age(earlier)).unwrap_or(self.wall);
        // Rounded down, also before 1970.
        let second = at.as_second() - i64::from(at.subsec_nanosecond() < 0);
        Wall(Timestamp::from_second(second).unwrap_or(at))
    }
}

/// A time of day in whole seconds; written in RFC 3339, UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wall(Timestamp);

impl Wall {
    /// Seconds since 1970.
    pub(crate) fn second(self) -> i64 {
        self.0.as_second()
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Wall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
        assert_eq!(moment.wall(moment.instant).to_string(), "2026-01-01T00:00:10Z");
        assert_eq!(moment.wall(instant).to_string(), "2025-12-31T23:59:10Z");
        assert_eq!(moment.wall(moment.instant - Duration::from_millis(800)).to_string(), "2026-01-01T00:00:09Z");
        // A sample from the future is from now.
        assert_eq!(moment.wall(moment.instant + Duration::from_secs(5)).to_string(), "2026-01-01T00:00:10Z");
    }
}
