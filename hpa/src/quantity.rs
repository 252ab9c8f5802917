//! Milli-units: how the controller reads every `Quantity`.

/// Turns a number into milli-units, rounding up as Go's `Quantity.MilliValue` does, saturating at
/// the ends of `i64`. `None` for NaN: "not a number" has no quantity, and 0 would be a lie.
///
/// Rounding up applies to what was meant, not to binary noise: `2.3` is 2300 although its nearest
/// double times 1000 may lie a hair beside it.
pub fn milli(value: f64) -> Option<i64> {
    if value.is_nan() {
        return None;
    }
    let scaled = value * 1000.0;
    let nearest = scaled.round();
    let noise = 2.0 * f64::EPSILON * nearest.abs();
    let whole = if (scaled - nearest).abs() <= noise { nearest } else { scaled.ceil() };
    // A float-to-integer cast saturates.
    Some(whole as i64)
}

/// Prints milli-units the way a `Quantity` prints itself: `850m`, `12500m`, `10`, `2k`.
pub fn format_milli(value: i64) -> String {
    const SUFFIXES: [&str; 7] = ["m", "", "k", "M", "G", "T", "P"];
    if value == 0 {
        return "0".to_owned();
    }
    let mut number = value;
    let mut index = 0;
    while number % 1000 == 0 && index + 1 < SUFFIXES.len() {
        number /= 1000;
        index += 1;
    }
    format!("{number}{}", SUFFIXES[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rounds_up_and_saturates() {
        assert_eq!(milli(0.8), Some(800));
        assert_eq!(milli(0.0001), Some(1));
        assert_eq!(milli(0.8001), Some(801));
        assert_eq!(milli(-0.0015), Some(-1));
        assert_eq!(milli(0.0), Some(0));
        assert_eq!(milli(f64::INFINITY), Some(i64::MAX));
        assert_eq!(milli(f64::NEG_INFINITY), Some(i64::MIN));
        assert_eq!(milli(1e300), Some(i64::MAX));
        assert_eq!(milli(f64::NAN), None);
    }

    #[test]
    fn prints_like_a_quantity() {
        assert_eq!(format_milli(850), "850m");
        assert_eq!(format_milli(12_500), "12500m");
        assert_eq!(format_milli(10_000), "10");
        assert_eq!(format_milli(2_000_000), "2k");
        assert_eq!(format_milli(0), "0");
        assert_eq!(format_milli(-1_500), "-1500m");
        assert_eq!(format_milli(i64::MIN), "-9223372036854775808m");
    }

    proptest! {
        #[test]
        fn decimals_of_three_places_are_exact(thousandths in -1_000_000_000_i64..1_000_000_000) {
            prop_assert_eq!(milli(thousandths as f64 / 1000.0), Some(thousandths));
        }

        #[test]
        fn never_below_the_value(value in -1e12_f64..1e12) {
            let rounded = milli(value).unwrap() as f64;
            // One part in 2^51 is the noise that does not count.
            prop_assert!(rounded >= value * 1000.0 - value.abs() * 1000.0 * 1e-15);
            prop_assert!(rounded < value * 1000.0 + 1.0);
        }
    }
}
