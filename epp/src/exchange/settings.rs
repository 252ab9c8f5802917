//! What of an exchange can be set.

use std::time::Duration;

use weir_ext_proc::{ErrorPrefix, Modes};

use crate::request::Parsers;
use crate::response::AttributeReporter;

/// Settings of all exchanges of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a request's body, 16 MiB; above it 413.
    pub request_bytes: usize,
    /// Bytes of all bodies that wait for a pick, 1 GiB; above it 503.
    pub waiting_bytes: usize,
    /// Streams open at once, one per request, 100,000; one more is turned away.
    pub streams: usize,
    /// Largest piece of a body in a reply, 24 KiB: some gateways refuse messages over 30 kB. At most 62,000.
    pub reply_chunk: usize,
    /// Whether a pick's whole list of endpoints is told; by default the first alone, since most gateways read one address.
    pub several_endpoints: bool,
    /// Whether the gateway's subset of endpoints is heeded; yes by default.
    pub subset_filter: bool,
    /// Whether the gateway chooses its route anew after the pick, as the Go picker asks; yes by default.
    pub clear_route_cache: bool,
    /// Whether `x-conformance-test-served-endpoint` tells who served; for conformance tests, off.
    pub served_verifier: bool,
    /// The header, in lower case, that tells who served: address, and name where it is known; none by default.
    pub served_header: Option<std::sync::Arc<str>>,
    /// Which paths are read, and how.
    pub parsers: Parsers,
    /// What is told to the gateway of each response.
    pub reporters: Vec<AttributeReporter>,
    /// Whether a gateway that sends no bodies is asked to send them in full duplex: it must allow that
    /// (`allow_mode_override: true`), or it waits in vain. No by default: such requests are placed by their head.
    pub ask_for_bodies: bool,
    /// After the pick a request counts as in flight until its stream ends, or until the gateway has said nothing for so long, 1 h.
    pub silence: Duration,
    /// How refusals begin.
    pub error_prefix: ErrorPrefix,
    /// Whether a body of a path that is no known API is read as completions, as v1.5 does; by default it passes, and its model counts
    /// where it is JSON that names one.
    pub unknown_as_completions: bool,
    /// The modes of a gateway that does not tell them.
    pub untold_modes: Modes,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_bytes: 16 << 20,
            waiting_bytes: 1 << 30,
            streams: 100_000,
            reply_chunk: 24 << 10,
            several_endpoints: false,
            subset_filter: true,
            clear_route_cache: true,
            served_verifier: false,
            served_header: None,
            parsers: Parsers::default(),
            reporters: Vec::new(),
            ask_for_bodies: false,
            silence: Duration::from_secs(3600),
            error_prefix: ErrorPrefix::default(),
            unknown_as_completions: false,
            untold_modes: Modes::default(),
        }
    }
}

impl Settings {
    /// Whether they make sense together.
    ///
    /// # Errors
    /// The setting that is out of its range.
    pub fn check(&self) -> Result<(), SettingError> {
        let refuse = |setting, given: usize, wanted: String| Err(SettingError { setting, given, wanted });
        if !(1..=62_000).contains(&self.reply_chunk) {
            return refuse("reply_chunk", self.reply_chunk, "give 1 to 62000 bytes".into());
        }
        if self.request_bytes == 0 || self.request_bytes > 1 << 30 {
            return refuse("request_bytes", self.request_bytes, "give 1 to 1073741824 bytes".into());
        }
        if self.waiting_bytes < self.request_bytes {
            return refuse(
                "waiting_bytes",
                self.waiting_bytes,
                format!("one request may take {}, give at least that", self.request_bytes),
            );
        }
        if self.streams == 0 {
            return refuse("streams", 0, "give at least 1".into());
        }
        Ok(())
    }
}

/// A setting out of its range.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{setting} is {given}: {wanted}")]
pub struct SettingError {
    setting: &'static str,
    given: usize,
    wanted: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let sound = Settings::default();
        assert_eq!(sound.check(), Ok(()));
        for (bad, name) in [
            (Settings { reply_chunk: 0, ..sound.clone() }, "reply_chunk"),
            (Settings { reply_chunk: 62_001, ..sound.clone() }, "reply_chunk"),
            (Settings { request_bytes: 0, ..sound.clone() }, "request_bytes"),
            (Settings { waiting_bytes: 1, ..sound.clone() }, "waiting_bytes"),
            (Settings { streams: 0, ..sound.clone() }, "streams"),
        ] {
            assert!(bad.check().unwrap_err().to_string().starts_with(name));
        }
    }
}
