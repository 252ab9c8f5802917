//! A label selector: whatever the text, no panic; what is accepted is the same after being written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_datastore::Selector;

fuzz_target!(|text: &str| {
    match Selector::parse(text) {
        Ok(selector) => {
            let written = selector.to_string();
            match Selector::parse(&written) {
                Ok(again) => assert_eq!(selector, again, "{text:?} is written {written:?}"),
                Err(error) => panic!("{text:?} is written {written:?}, which is refused: {error}"),
            }
            assert_eq!(selector.is_everything(), selector.requirements().is_empty());
            for requirement in selector.requirements() {
                // `key` and `!key`: one of them holds, whatever the label.
                if requirement.values.is_empty() {
                    assert_ne!(requirement.matches(Some("")), requirement.matches(None), "{requirement}");
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
