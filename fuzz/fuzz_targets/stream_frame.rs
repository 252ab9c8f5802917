//! A line of another weir's stream: whatever the bytes, no panic; what is read is the same after being written and read again, and
//! no load comes of it that cannot be true.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tokio::time::Instant;
use weir_datastore::stream::{EndpointFrame, Frame, FrameError, PickerFrame, VERSION};

/// Ages beyond this are refused.
const OLDEST: Duration = Duration::from_secs(3600);

fuzz_target!(|line: &[u8]| {
    let frame = match Frame::parse(line) {
        Ok(frame) => frame,
        Err(error) => {
            assert!(!matches!(error, FrameError::Version { found: VERSION }), "{error}");
            return assert!(!error.to_string().is_empty());
        }
    };
    assert_eq!(frame.version, VERSION);
    let written = serde_json::to_vec(&frame).expect("a frame can be written");
    assert_eq!(Frame::parse(&written).as_ref(), Ok(&frame));
    // Well after the machine's start, so that every age that is allowed lies within it.
    let now = Instant::now() + 2 * OLDEST;
    for endpoint in frame.endpoints {
        let told = endpoint.clone();
        match endpoint.into_load(now) {
            Ok((address, load, interval)) => {
                assert!(now - load.scraped_at <= OLDEST);
                assert_eq!(interval, Duration::from_millis(told.interval_ms));
                for requests in [load.running, load.waiting].into_iter().flatten() {
                    assert!(requests.value >= 0.0 && requests.value.is_finite(), "{load:?}");
                    assert!(requests.hottest >= 0.0 && requests.hottest.is_finite(), "{load:?}");
                }
                if let Some(ratio) = load.kv_cache_utilization {
                    assert!((0.0..=1.0).contains(&ratio.value) && (0.0..=1.0).contains(&ratio.hottest), "{load:?}");
                }
                // Told on, it is the same.
                let (again, same, _) = EndpointFrame::of(&address, &load, interval, now).into_load(now).expect("it was good");
                assert_eq!((again, same), (address, load));
            }
            Err(error) => assert!(matches!(error, FrameError::Endpoint { .. }), "{error}"),
        }
    }
    for picker in frame.pickers {
        if let Some(load) = picker.load(now) {
            assert!(now - load.read_at <= OLDEST);
            assert_eq!(PickerFrame::of(picker.name.clone(), &load, now), picker);
        }
    }
});
