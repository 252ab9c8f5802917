//! An endpoint picker's page: whatever the bytes, no panic; a pool's part is never more than the whole.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::time::Instant;
use weir_datastore::page::Format;
use weir_datastore::picker::{PickerPageError, PickerPageReader};

const LABEL: &[u8] = b"inference_pool";

static READER: LazyLock<PickerPageReader> = LazyLock::new(PickerPageReader::default);

fuzz_target!(|input: &[u8]| {
    let Some((&choice, page)) = input.split_first() else { return };
    let format = if choice & 1 == 0 { Format::Text } else { Format::OpenMetrics };
    let now = Instant::now();
    match (READER.read(page, format, "p", now), READER.read_any(page, format, now)) {
        (Ok(of_pool), Ok(of_any)) => {
            assert_eq!((of_pool.read_at, of_any.read_at), (now, now));
            if page.split(|byte| *byte == b'\n').any(names_several_pools) {
                return;
            }
            // Series that name no pool count for every one.
            assert!(of_pool.held <= of_any.held, "{of_pool:?} of {of_any:?}");
            assert!(of_pool.arrivals <= of_any.arrivals, "{of_pool:?} of {of_any:?}");
        }
        // What is wrong with another pool's series does not matter here.
        (Ok(_), Err(PickerPageError::Invalid { .. })) => {}
        (Err(PickerPageError::Invalid { line, .. }), Err(PickerPageError::Invalid { line: of_any, .. })) => {
            let lines = page.iter().filter(|byte| **byte == b'\n').count() as u32;
            assert!((1..=lines).contains(&line) && (1..=lines).contains(&of_any), "{line} and {of_any} of {lines}");
        }
        (Err(of_pool), Err(of_any)) => assert_eq!(of_pool, of_any),
        (of_pool, of_any) => panic!("{of_pool:?} but {of_any:?}"),
    }
});

/// Whether a line has the label twice, which no exposition may: which of the two is meant depends on who asks.
fn names_several_pools(line: &[u8]) -> bool {
    line.windows(LABEL.len()).filter(|word| *word == LABEL).count() > 1
}
