//! What was seen by asking the pods themselves.

use super::facts;

facts! {
    /// A metrics page, as it was read through the API server.
    Page {
        namespace: String,
        pod: String,
        port: i64,
        path: String,
        /// The pod's HTTP status; none where no answer came.
        status: i64,
        /// Why no answer came: `refused`, `timeout`, `forbidden` (by the API server), `failed`.
        failure: String,
        message: String,
        bytes: i64,
        /// Samples on the page.
        samples: i64,
        /// The engine that wrote it.
        engine: String,
        /// Why it is no page of an engine.
        unreadable: String,
        waiting: f64,
        running: f64,
        kv_cache_utilization: f64,
        /// Load signals of the engine that it lacks.
        missing: Vec<String>,
        /// How many engines (data-parallel ranks) one page tells of.
        ranks: i64,
        max_running: f64,
        /// Seconds since the newest sample, where the page carries timestamps.
        sample_age_seconds: f64,
    }

    /// The answer to `/v1/models`.
    ServedModels {
        namespace: String,
        pod: String,
        port: i64,
        status: i64,
        failure: String,
        /// `data[].id` and `data[].root`.
        ids: Vec<String>,
    }

    /// What came of calling a picker's port with TLS.
    Dial {
        namespace: String,
        pod: String,
        port: i64,
        /// Whether it speaks TLS; none where that could not be told.
        tls: bool,
        /// `refused`, or `forbidden` by the API server.
        failure: String,
    }

    /// What of a picker's configuration can go wrong in silence.
    PickerConfig { namespace: String, source: String, plugins: Vec<Plugin>, profiles: Vec<Profile>, feature_gates: Vec<String>, unreadable: String, }
    Plugin { name: String, r#type: String, queue_depth_threshold: f64, kv_cache_util_threshold: f64, }
    Profile { name: String, plugins: Vec<ProfilePlugin>, }
    ProfilePlugin { plugin_ref: String, weight: f64, }

    /// A line of a picker's log that names a known cause; not the line itself.
    LogSign {
        namespace: String,
        pod: String,
        /// `forbidden` or `traces`.
        kind: String,
        verb: String,
        resource: String,
        group: String,
        /// The namespace in which it is forbidden; empty: everywhere.
        within: String,
        /// HTTP status of the refusal.
        status: i64,
    }
}

/// Failure of a page whose port nobody listens on.
pub(crate) const REFUSED: &str = "refused";
/// Failure of a page that did not come in time.
pub(crate) const TIMEOUT: &str = "timeout";
/// Failure of a page that the API server does not let the asker read.
pub(crate) const NOT_ALLOWED: &str = "forbidden";
/// Any other failure.
pub(crate) const FAILED: &str = "failed";

impl Page {
    pub(crate) fn place(&self) -> String {
        format!(
            "{}/{}:{}{}",
            self.namespace.as_deref().unwrap_or("?"),
            self.pod.as_deref().unwrap_or("?"),
            self.port.map_or_else(|| "?".to_owned(), |port| port.to_string()),
            self.path.as_deref().unwrap_or("")
        )
    }
}
