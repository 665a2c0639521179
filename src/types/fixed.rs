//! Decimal numbers, exact: what sums, averages and percentiles are made of.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A number with nine digits behind the point, from -10^15 to 10^15.
///
/// So a sum of 10^14 of them fits, and neither order nor grouping changes it, as they would with binary floats.
///
/// It is written as a text: JSON's numbers would not keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fixed(i128);

/// Why a text is no [`Fixed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFixed {
    /// It is no decimal number.
    NotANumber,
    /// It is one, but beyond 10^15.
    OutOfRange,
}

impl fmt::Display for NotFixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotFixed::NotANumber => "no decimal number",
            NotFixed::OutOfRange => "a number beyond 10^15",
        })
    }
}

/// Digits behind the point.
const DIGITS: i32 = 9;
/// The largest number, in billionths.
const RAW_MAX: i128 = 1_000_000_000_000_000 * Fixed::SCALE;
/// Digits that [`RAW_MAX`] has.
const RAW_DIGITS: i32 = 25;
/// A longer text is no number that anybody measured.
const TEXT_BYTES_MAX: usize = 256;

impl Fixed {
    /// Billionths in a whole.
    pub const SCALE: i128 = 1_000_000_000;

    /// A whole number; `None` beyond 10^15.
    #[must_use]
    pub fn whole(number: i64) -> Option<Fixed> {
        let raw = i128::from(number) * Fixed::SCALE;
        (raw.abs() <= RAW_MAX).then_some(Fixed(raw))
    }

    /// Reads a decimal number as logs and JSON write it: `-12.5`, `+3`, `.5`, `1e3`. White space around it is allowed.
    /// Digits after the ninth behind the point are cut off.
    ///
    /// # Errors
    ///
    /// It is no such number, or beyond 10^15.
    pub fn parse(text: &str) -> Result<Fixed, NotFixed> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(NotFixed::NotANumber);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, read_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
            return Err(NotFixed::NotANumber);
        }
        let significant: Vec<u8> = digits().skip_while(|digit| *digit == b'0').collect();
        if significant.is_empty() {
            return Ok(Fixed(0));
        }
        // The number is `significant` * 10^(exponent - fraction); raw, in billionths, that is so many places more.
        let length = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
        let places = exponent - length(fraction.len()) + DIGITS;
        let raw_digits = length(significant.len()).saturating_add(places);
        if raw_digits > RAW_DIGITS {
            return Err(NotFixed::OutOfRange);
        }
        let kept = usize::try_from(raw_digits.min(length(significant.len()))).unwrap_or(0);
        let digits = significant.iter().take(kept).fold(0i128, |raw, digit| raw * 10 + i128::from(digit - b'0'));
        let zeros = u32::try_from(places.max(0)).unwrap_or(0);
        let raw = digits * 10i128.pow(zeros);
        if raw > RAW_MAX {
            return Err(NotFixed::OutOfRange);
        }
        Ok(Fixed(if negative { -raw } else { raw }))
    }

    /// The number in billionths.
    #[must_use]
    pub const fn raw(self) -> i128 {
        self.0
    }
}

/// An exponent beyond four digits is taken for no number: nothing writes it.
fn read_exponent(text: &str) -> Result<i32, NotFixed> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotFixed::NotANumber);
    }
    text.parse().map_err(|_| NotFixed::NotANumber)
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0.abs() / Fixed::SCALE, self.0.abs() % Fixed::SCALE);
        let sign = if self.0 < 0 { "-" } else { "" };
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        write!(f, "{sign}{whole}.{}", format!("{part:09}").trim_end_matches('0'))
    }
}

impl Serialize for Fixed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fixed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fixed, D::Error> {
        let text = String::deserialize(deserializer)?;
        Fixed::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let shown = Fixed::parse(text).map_or_else(|why| why.to_string(), |number| number.to_string());
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn decimal_numbers_are_read_exactly() {
        for (text, expect) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("42", "42"),
            (" +7 ", "7"),
            ("007", "7"),
            ("-12.5", "-12.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("0.1", "0.1"),
            ("0.000000001", "0.000000001"),
            ("0.0000000019", "0.000000001"), // cut, not rounded
            ("-0.0000000009", "0"),
            ("1e3", "1000"),
            ("1.25E+2", "125"),
            ("25e-1", "2.5"),
            ("1e-30", "0"),
            ("1000000000000000", "1000000000000000"),
            ("1e15", "1000000000000000"),
            ("0.30000000000000004", "0.3"),
            ("0e9999", "0"),
        ] {
            check(text, expect);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "-", ".", "x", "1x", "0x10", "1,5", "1e", "e5", "1e99999", "--1", "1.2.3", "NaN", "inf", "٣"]
        {
            check(text, "no decimal number");
        }
        for text in ["1000000000000000.1", "1e16", "9e999", "-99999999999999999999"] {
            check(text, "a number beyond 10^15");
        }
    }

    #[test]
    fn it_reads_what_it_shows() {
        for raw in [0, 1, -1, 999_999_999, 1_000_000_000, -123_456_789_012, RAW_MAX, -RAW_MAX] {
            assert_eq!(Fixed::parse(&Fixed(raw).to_string()), Ok(Fixed(raw)));
            let json = serde_json::to_string(&Fixed(raw)).unwrap();
            assert_eq!(serde_json::from_str::<Fixed>(&json).unwrap(), Fixed(raw));
        }
    }
}
