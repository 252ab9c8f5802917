//! A Quantity of Kubernetes: whatever the text, no panic; what is read is the same after being written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_adapter::Quantity;

fuzz_target!(|text: &str| {
    match text.parse::<Quantity>() {
        Ok(quantity) => {
            let written = quantity.to_string();
            assert_eq!(written.parse(), Ok(quantity), "{text:?} is written {written:?}");
            // The other sign is the same amount.
            let opposite = match text.strip_prefix(['-', '+']) {
                Some(unsigned) if text.starts_with('-') => unsigned.to_owned(),
                Some(unsigned) => format!("-{unsigned}"),
                None => format!("-{text}"),
            };
            let opposite = opposite.parse::<Quantity>().map(Quantity::milli);
            // Only the longest text that is read has no room for a sign.
            assert!(opposite == Ok(-quantity.milli()) || text.len() >= 64, "{text:?}: {opposite:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(value) = text.parse::<f64>() {
        match Quantity::from_f64(value) {
            Ok(quantity) => {
                assert!(value >= 0.0 && value.is_finite());
                assert_eq!(quantity.milli() == 0, value == 0.0, "{value} is written {quantity}");
                let most = value.min(9.2e15) * 1000.0;
                assert!((quantity.milli() as f64 - most).abs() <= 1.0 + most * 1e-15, "{value} is written {quantity}");
            }
            Err(_) => assert!(value < 0.0 || !value.is_finite(), "{value}"),
        }
    }
});
