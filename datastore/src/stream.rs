//! What weir tells weir of a pool: newline-delimited JSON, so that a pool is measured once and a held request is known everywhere
//! within milliseconds.
//!
//! A stream begins with a frame of everything that is known; each further frame carries the endpoints that were read since, and all
//! pickers. Times are ages: clocks of two machines need not agree. A frame without endpoints or pickers is a heartbeat, sent every
//! second while nothing changes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::Instant;

use crate::engine::{Engine, Signal};
use crate::latency::{COUNTS_FOR, MOST_MODELS, ModelLatencies, PickerLatencies};
use crate::load::{Combined, Counters, EndpointLoad, LoraLoad, PickerLoad, UnitLoad, Unused};
use crate::pool::EndpointAddress;

/// The version of the frames. A reader refuses a version that it does not know.
pub const VERSION: u32 = 1;

/// A heartbeat at least this often.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Frames at least this far apart, except for the first held request.
pub const FRAMES_APART: Duration = Duration::from_millis(100);

/// A stream that says nothing for this long is not to be relied on.
pub const SILENCE: Duration = Duration::from_secs(3);

/// Ages beyond this are not told: the sample is of no use to anybody.
const OLDEST: Duration = Duration::from_secs(3600);

/// One line of a stream.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Frame {
    /// [`VERSION`].
    pub version: u32,
    /// Counts the frames of one stream, from 0.
    pub sequence: u64,
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub name: String,
    /// Endpoints that were read since the last frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointFrame>,
    /// All the pool's pickers; one that cannot be read by its age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pickers: Vec<PickerFrame>,
    /// What weir pickers measured in the last minute: each in the first frame after it summed up, every 10 s.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latencies: Vec<LatencyFrame>,
}

/// What one weir picker measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyFrame {
    /// The picker's name.
    pub picker: Arc<str>,
    /// How long ago it summed up, in milliseconds.
    pub age_ms: u64,
    /// By model.
    #[serde(default)]
    pub models: Vec<ModelLatencies>,
}

/// What one endpoint's page said.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointFrame {
    /// host:port.
    pub address: String,
    /// How long ago the page was asked for, in milliseconds.
    pub age_ms: u64,
    /// How often it is read at present, in milliseconds.
    pub interval_ms: u64,
    /// The engine's name.
    pub engine: String,
    /// Requests in execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Combined>,
    /// Requests queued in the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Combined>,
    /// Share of the KV cache in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_cache_utilization: Option<Combined>,
    /// Counters since the server's start.
    #[serde(default)]
    pub counters: Counters,
    /// Adapters in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraLoad>,
    /// The parts that the totals were made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitLoad>,
    /// What was left out.
    #[serde(default)]
    pub unused: Unused,
}

/// What one picker said.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PickerFrame {
    /// Its name: two streams that tell of one picker tell of it once.
    pub name: Arc<str>,
    /// How long ago it said so, in milliseconds.
    pub age_ms: u64,
    /// Requests that wait in it; absent where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// Requests sent to endpoints and not ended; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// Requests that ever arrived.
    pub arrivals: u64,
    /// Their prompt tokens; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
}

/// Why a frame is not used.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum FrameError {
    /// Not a frame at all.
    #[error("not a frame: {0}")]
    Malformed(String),
    /// Of another version.
    #[error("version {found} of the stream, this weir reads version {VERSION}: update the older of the two")]
    Version {
        /// The version found.
        found: u32,
    },
    /// Of another pool.
    #[error("of pool {found}, not of {wanted}")]
    Pool {
        /// The pool asked for.
        wanted: String,
        /// The pool told of.
        found: String,
    },
    /// A value that cannot be true.
    #[error("endpoint {address}: {problem}")]
    Endpoint {
        /// Which endpoint.
        address: String,
        /// What is wrong.
        problem: String,
    },
}

impl Frame {
    /// Reads one line.
    ///
    /// # Errors
    /// [`FrameError::Malformed`] or [`FrameError::Version`].
    pub fn parse(line: &[u8]) -> Result<Self, FrameError> {
        /// Read first: a later version may look different otherwise.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |error: serde_json::Error| FrameError::Malformed(error.to_string());
        let Versioned { version } = serde_json::from_slice(line).map_err(malformed)?;
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        serde_json::from_slice(line).map_err(malformed)
    }
}

impl EndpointFrame {
    /// `load` of the endpoint at `address`, as told at `now`.
    pub fn of(address: &EndpointAddress, load: &EndpointLoad, interval: Duration, now: Instant) -> Self {
        Self {
            address: address.to_string(),
            age_ms: milliseconds(now.saturating_duration_since(load.scraped_at)),
            interval_ms: milliseconds(interval),
            engine: load.engine.name().to_owned(),
            running: load.running,
            waiting: load.waiting,
            kv_cache_utilization: load.kv_cache_utilization,
            counters: load.counters,
            lora: load.lora.clone(),
            units: load.units.clone(),
            unused: load.unused,
        }
    }

    /// Where, the load and the interval it is read at, as heard at `now`.
    ///
    /// # Errors
    /// [`FrameError::Endpoint`] where something cannot be true: another weir's word is checked like a page.
    pub fn into_load(self, now: Instant) -> Result<(EndpointAddress, EndpointLoad, Duration), FrameError> {
        let problem = |problem: String| FrameError::Endpoint { address: self.address.clone(), problem };
        let address = self.address.parse().map_err(problem)?;
        let engine: Engine = self.engine.parse().map_err(problem)?;
        let told = [
            (Signal::Running, self.running),
            (Signal::Waiting, self.waiting),
            (Signal::KvCacheUtilization, self.kv_cache_utilization),
        ];
        for (signal, combined) in told {
            if combined.is_some_and(|combined| !signal.admits(combined.value) || !signal.admits(combined.hottest)) {
                return Err(problem(format!("{} cannot be {combined:?}", signal.key())));
            }
        }
        let age = Duration::from_millis(self.age_ms);
        let scraped_at = (age <= OLDEST).then(|| now.checked_sub(age)).flatten();
        let scraped_at = scraped_at.ok_or_else(|| problem(format!("an age of {} ms", self.age_ms)))?;
        let load = EndpointLoad {
            engine,
            scraped_at,
            running: self.running,
            waiting: self.waiting,
            kv_cache_utilization: self.kv_cache_utilization,
            counters: self.counters,
            lora: self.lora,
            units: self.units,
            unused: self.unused,
        };
        Ok((address, load, Duration::from_millis(self.interval_ms)))
    }
}

impl PickerFrame {
    /// `load` of the picker called `name`, as told at `now`.
    pub fn of(name: Arc<str>, load: &PickerLoad, now: Instant) -> Self {
        let age_ms = milliseconds(now.saturating_duration_since(load.read_at));
        let PickerLoad { held, in_flight, arrivals, prompt_tokens, .. } = *load;
        Self { name, age_ms, held, in_flight, arrivals, prompt_tokens }
    }

    /// The load, as heard at `now`; none where it is too old to be of use.
    pub fn load(&self, now: Instant) -> Option<PickerLoad> {
        let age = Duration::from_millis(self.age_ms);
        let read_at = (age <= OLDEST).then(|| now.checked_sub(age)).flatten()?;
        let Self { held, in_flight, arrivals, prompt_tokens, .. } = *self;
        Some(PickerLoad { read_at, held, in_flight, arrivals, prompt_tokens })
    }
}

impl LatencyFrame {
    /// What `picker` measured, as told at `now`.
    pub fn of(picker: Arc<str>, measured: &PickerLatencies, now: Instant) -> Self {
        let age_ms = milliseconds(now.saturating_duration_since(measured.as_of));
        Self { picker, age_ms, models: measured.models.clone() }
    }

    /// What was measured, as heard at `now`; none where it is too old, or cannot be true: another weir's word is checked like a page.
    pub fn into_measured(self, now: Instant) -> Option<(Arc<str>, PickerLatencies)> {
        /// Bytes of a name.
        const LONGEST: usize = 256;
        let named = |name: &str| name.len() <= LONGEST;
        let sound = self.models.len() <= MOST_MODELS + 1
            && named(&self.picker)
            && self.models.iter().all(|model| named(&model.model) && model.is_sound());
        let age = Duration::from_millis(self.age_ms);
        let as_of = (age <= COUNTS_FOR && sound).then(|| now.checked_sub(age)).flatten()?;
        Some((self.picker, PickerLatencies { as_of, models: self.models }))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{PageClock, PageMemory, PageReader};
    use crate::page::Format;

    fn frame(now: Instant) -> Frame {
        let page = "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3\nvllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.5\n\
                    vllm:prompt_tokens_total 7\nvllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"a\"} 1\n";
        let clock = PageClock { asked_at: now, wall_ms: 0, stale_after_ms: 2_000 };
        let load = PageReader::new(None, &[]).read(page.as_bytes(), Format::Text, clock, &mut PageMemory::default()).unwrap();
        let address = "10.0.0.1:8000".parse().unwrap();
        let later = now + Duration::from_millis(250);
        Frame {
            version: VERSION,
            sequence: 1,
            namespace: "default".into(),
            name: "p".into(),
            endpoints: vec![EndpointFrame::of(&address, &load, Duration::from_secs(1), later)],
            pickers: vec![PickerFrame::of(
                "a".into(),
                &PickerLoad { read_at: now, held: Some(4), in_flight: Some(2), arrivals: 9, prompt_tokens: Some(900) },
                later,
            )],
            latencies: Vec::new(),
        }
    }

    #[test]
    fn what_is_told_is_what_is_heard_but_for_the_time_between() {
        let now = Instant::now() + Duration::from_secs(10);
        let told = frame(now);
        let line = serde_json::to_vec(&told).unwrap();
        let heard = Frame::parse(&line).unwrap();
        assert_eq!(heard, told);
        let heard_at = now + Duration::from_secs(5);
        let (address, load, interval) = heard.endpoints[0].clone().into_load(heard_at).unwrap();
        assert_eq!((address.as_str(), interval), ("10.0.0.1:8000", Duration::from_secs(1)));
        assert_eq!(load.scraped_at, heard_at - Duration::from_millis(250));
        assert_eq!((load.running.unwrap().value, load.counters.prompt_tokens), (3.0, Some(7.0)));
        assert_eq!(load.lora.unwrap().running, ["a".into()]);
        let picker = heard.pickers[0].load(heard_at).unwrap();
        assert_eq!((picker.held, picker.in_flight, picker.prompt_tokens), (Some(4), Some(2), Some(900)));
        let older = br#"{"name":"a","ageMs":1,"held":4,"arrivals":9}"#;
        let older: PickerFrame = serde_json::from_slice(older).unwrap();
        assert_eq!((older.prompt_tokens, older.arrivals), (None, 9), "as an earlier weir told it");
    }

    #[test]
    fn frames_that_cannot_be_true_are_refused_with_what_is_wrong() {
        let now = Instant::now() + Duration::from_secs(10);
        assert!(matches!(Frame::parse(b"{\"version\":2,\"other\":1}"), Err(FrameError::Version { found: 2 })));
        assert!(matches!(Frame::parse(b"<html>"), Err(FrameError::Malformed(_))));
        assert!(matches!(Frame::parse(b"{}"), Err(FrameError::Malformed(_))));
        let endpoint = frame(now).endpoints.remove(0);
        let refused = |change: fn(&mut EndpointFrame)| {
            let mut changed = endpoint.clone();
            change(&mut changed);
            changed.into_load(now).unwrap_err().to_string()
        };
        assert!(refused(|endpoint| endpoint.address = "nowhere".into()).contains("has no port"));
        assert!(refused(|endpoint| endpoint.engine = "vlm".into()).contains("unknown engine"));
        assert!(refused(|endpoint| endpoint.age_ms = u64::MAX).contains("an age of"));
        assert!(refused(|endpoint| endpoint.running = Some(Combined { value: -1.0, hottest: 0.0 })).contains("running cannot be"));
    }
}
