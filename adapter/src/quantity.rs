//! Kubernetes' Quantity: a decimal number written as text.
//!
//! Written in canonical decimalSI form with milli precision, which is all that the autoscaler sees (it rounds up to milli); nothing
//! is written in micro. Read in every form that `k8s.io/apimachinery/pkg/api/resource` reads.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// The most that is written: as milli it still fits the 64 bits in which the autoscaler calculates.
const MOST: f64 = 9.2e15;

/// Longest text that is read.
const LONGEST: usize = 64;

/// Most digits read between the leading and the trailing zeros.
const MOST_DIGITS: usize = 19;

/// A number in thousandths.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Quantity {
    milli: i64,
}

/// Why a number or a text is no [`Quantity`].
#[derive(Clone, Debug, Error, PartialEq)]
pub enum QuantityError {
    /// A measured value that is negative, infinite or not a number: never to be shown to an autoscaler.
    #[error("{0} is not a value that an autoscaler can be given")]
    NotAnAmount(f64),
    /// The text does not follow the grammar.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none of `n u m k M G T P E Ki Mi Gi Ti Pi Ei` and no exponent.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// More digits than can be told apart, or too large.
    #[error("the quantity does not fit 64 bits of thousandths")]
    TooLarge,
}

impl Quantity {
    /// A measured value, rounded to milli. Exactly 0 stays 0 and whatever is above is at least 1m, so that the least demand keeps one
    /// replica; more than 9.2e15 is written as that.
    ///
    /// # Errors
    /// [`QuantityError::NotAnAmount`] for a negative, infinite or undefined value.
    pub fn from_f64(value: f64) -> Result<Self, QuantityError> {
        if !value.is_finite() || value < 0.0 {
            return Err(QuantityError::NotAnAmount(value));
        }
        if value == 0.0 {
            return Ok(Self { milli: 0 });
        }
        let value = value.min(MOST);
        // Whole and part apart: a large whole number times 1000 is no longer exact in floating point.
        let milli = value.trunc() as i64 * 1000 + (value.fract() * 1000.0).round() as i64;
        Ok(Self { milli: milli.max(1) })
    }

    /// In thousandths.
    pub fn milli(self) -> i64 {
        self.milli
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.milli < 0 {
            formatter.write_str("-")?;
        }
        let milli = self.milli.unsigned_abs();
        if !milli.is_multiple_of(1000) {
            return write!(formatter, "{milli}m");
        }
        let mut suffixes = ["k", "M", "G", "T", "P", "E"].into_iter();
        let mut suffix = "";
        let mut number = milli / 1000;
        while number != 0 && number.is_multiple_of(1000) {
            let Some(larger) = suffixes.next() else { break };
            suffix = larger;
            number /= 1000;
        }
        write!(formatter, "{number}{suffix}")
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    /// Reads `text`; what is finer than milli is rounded away from zero, as the autoscaler does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > LONGEST {
            return Err(QuantityError::TooLarge);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.contains('.') || (whole.is_empty() && part.is_empty()) {
            return Err(QuantityError::Format);
        }
        let (doublings, exponent) = scale(suffix)?;
        let all_digits = format!("{whole}{part}");
        let digits = all_digits.trim_end_matches('0');
        let exponent = exponent + (all_digits.len() - digits.len()) as i64 - part.len() as i64 + 3;
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() {
            return Ok(Self { milli: 0 });
        }
        if digits.len() > MOST_DIGITS {
            return Err(QuantityError::TooLarge);
        }
        let digits: u128 = digits.parse().map_err(|_| QuantityError::Format)?;
        let milli = scaled(digits << doublings, exponent)?;
        Ok(Self { milli: if negative { -milli } else { milli } })
    }
}

/// What a suffix multiplies by: a power of two and a power of ten.
fn scale(suffix: &str) -> Result<(u32, i64), QuantityError> {
    Ok(match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            (0, i64::from(digits.parse::<i32>().map_err(|_| QuantityError::Suffix)?))
        }
    })
}

/// `number` × 10^`exponent`, rounded up to a whole number.
fn scaled(number: u128, exponent: i64) -> Result<i64, QuantityError> {
    // No power of ten beyond 10^38 fits 128 bits: multiplied it is too large, divided by it next to nothing is left.
    let power = u32::try_from(exponent.unsigned_abs()).ok().and_then(|exponent| 10_u128.checked_pow(exponent));
    let whole = match (power, exponent >= 0) {
        (Some(power), true) => number.checked_mul(power).ok_or(QuantityError::TooLarge)?,
        (None, true) => return Err(QuantityError::TooLarge),
        (Some(power), false) => number.div_ceil(power),
        (None, false) => 1,
    };
    i64::try_from(whole).map_err(|_| QuantityError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: f64) -> String {
        Quantity::from_f64(value).unwrap().to_string()
    }

    fn milli(text: &str) -> Result<i64, QuantityError> {
        text.parse::<Quantity>().map(Quantity::milli)
    }

    #[test]
    fn the_canonical_form_has_the_largest_suffix_without_a_fraction() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.85, "850m"),
            (12.5, "12500m"),
            (1500.0, "1500"),
            (1000.0, "1k"),
            (2_000_000.0, "2M"),
            (1_234_567.0, "1234567"),
            (1_000_000.5, "1000000500m"),
            (3e9, "3G"),
            (3e12, "3T"),
            (3e15, "3P"),
        ] {
            assert_eq!(written(value), expected, "{value}");
        }
        assert_eq!(Quantity { milli: -500 }.to_string(), "-500m");
        assert_eq!(Quantity { milli: -2_000_000 }.to_string(), "-2k");
    }

    #[test]
    fn values_are_rounded_to_milli_and_the_least_is_one_milli() {
        for (value, expected) in [
            (0.8549, "855m"),
            (0.8544, "854m"),
            (0.000_1, "1m"),
            (f64::MIN_POSITIVE, "1m"),
            (0.001_4, "1m"),
            (0.9996, "1"),
            (999.9999, "1k"),
            // Exact, although its thousandfold is not a floating point number.
            (9_007_199_254_740_991.0, "9007199254740991"),
        ] {
            assert_eq!(written(value), expected, "{value}");
        }
    }

    #[test]
    fn what_overflows_the_autoscaler_is_capped() {
        assert_eq!(written(9.2e15), "9200T");
        assert_eq!(written(9.3e15), "9200T");
        assert_eq!(written(f64::MAX), "9200T");
    }

    #[test]
    fn what_is_no_amount_is_never_written() {
        for value in [-0.001, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(Quantity::from_f64(value), Err(QuantityError::NotAnAmount(_))), "{value}");
        }
    }

    #[test]
    fn every_form_is_read_as_the_autoscaler_reads_it() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("850m", 850),
            // Micro precision is read, and rounded up.
            ("854900u", 855),
            ("1n", 1),
            ("-1n", -1),
            ("0.0001", 1),
            ("12.5", 12_500),
            (".5", 500),
            ("5.", 5_000),
            ("+1k", 1_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1e-3", 1),
            ("1e-2147483648", 1),
            ("0e2147483647", 0),
            ("1Ki", 1_024_000),
            ("0.5Mi", 524_288_000),
            ("-500m", -500),
            ("000000000000000000000000000000000001.500000000000000000000", 1_500),
            ("100000000000000000000n", 100_000_000_000_000),
        ] {
            assert_eq!(milli(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "-", ".", "m", "1.2.3", "--1", "+-1", " 1", "NaN", "Inf"] {
            assert_eq!(milli(text), Err(QuantityError::Format), "{text:?}");
        }
        for text in ["1x", "1 ", "1e", "1e1.5", "1ki", "1mi", "1KI", "1e99999999999", "1m1", "1é"] {
            assert_eq!(milli(text), Err(QuantityError::Suffix), "{text:?}");
        }
        for text in ["1E", "1Ei", "9223372036854776", "1e2147483647", "12345678901234567891", &"1".repeat(65)] {
            assert_eq!(milli(text), Err(QuantityError::TooLarge), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(milli in any::<i64>().prop_filter("its magnitude must fit", |milli| *milli != i64::MIN)) {
            let quantity = Quantity { milli };
            prop_assert_eq!(quantity.to_string().parse(), Ok(quantity));
        }

        #[test]
        fn a_written_value_is_the_value_to_half_a_milli(value in 0.0..1e12) {
            let written = Quantity::from_f64(value).unwrap().milli() as f64 / 1000.0;
            prop_assert!((written - value).abs() <= 0.0005 * (1.0 + 1e-9) + value * f64::EPSILON || written == 0.001, "{} {}", value, written);
            prop_assert_eq!(written == 0.0, value == 0.0);
        }

        #[test]
        fn the_larger_value_is_never_the_smaller_quantity(one in 0.0..1e17, other in 0.0..1e17) {
            let (less, more) = if one < other { (one, other) } else { (other, one) };
            prop_assert!(Quantity::from_f64(less).unwrap() <= Quantity::from_f64(more).unwrap());
        }

        #[test]
        fn any_text_is_an_answer(text in "[-+]{0,2}[0-9.]{0,30}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(quantity.to_string().parse(), Ok(quantity));
            }
        }
    }
}
