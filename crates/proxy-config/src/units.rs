//! Durations and sizes as config writes them: `500ms`, `64KiB`.
//!
//! Owns their canonical text: the largest unit that needs no fraction.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::words::text_form;

/// The longest duration; more is surely a mistake and is refused.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The largest size; more is surely a mistake and is refused.
const SIZE_MAX: u64 = 1 << 40;

const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
const SIZE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A duration: whole numbers with units, such as `500ms`, `2s` or `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// A number of bytes: a whole number with a unit, such as `64KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitFault {
    /// Not of the form number and unit.
    #[error(
        "`{0}` is not a duration; write a whole number and a unit, such as 500ms, 2s, 5m or 1h"
    )]
    Time(String),
    /// More than `TIME_MAX`.
    #[error("`{0}` is more than 365 days; give a shorter time")]
    TimeTooLong(String),
    /// Not of the form number and unit.
    #[error("`{0}` is not a size; write a whole number and a unit, such as 512B, 64KiB or 1MiB")]
    Size(String),
    /// More than `SIZE_MAX`.
    #[error("`{0}` is more than 1024 GiB; give a smaller size")]
    SizeTooLarge(String),
}

/// Takes one number and its unit off the front: the count in the smallest unit, and the rest.
fn take<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(u64, &'a str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = if number.len() > 18 {
        u64::MAX
    } else {
        number.parse().ok()?
    };
    Some((number.saturating_mul(*factor), rest))
}

impl FromStr for Time {
    type Err = UnitFault;

    fn from_str(text: &str) -> Result<Self, UnitFault> {
        let mut total = 0u64;
        let mut rest = text;
        loop {
            let (count, behind) =
                take(rest, &TIME_UNITS).ok_or_else(|| UnitFault::Time(text.to_owned()))?;
            total = total.saturating_add(count);
            if behind.is_empty() {
                break;
            }
            rest = behind;
        }
        let time = Duration::from_millis(total);
        if time > TIME_MAX {
            Err(UnitFault::TimeTooLong(text.to_owned()))
        } else {
            Ok(Self(time))
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        let fits = |unit: &&(&str, u64)| millis.is_multiple_of(u128::from(unit.1));
        let (unit, factor) = TIME_UNITS
            .iter()
            .find(fits)
            .expect("every count is whole milliseconds");
        write!(f, "{}{unit}", millis / u128::from(*factor))
    }
}

impl FromStr for Size {
    type Err = UnitFault;

    fn from_str(text: &str) -> Result<Self, UnitFault> {
        match take(text, &SIZE_UNITS) {
            Some((size, "")) if size <= SIZE_MAX => Ok(Self(size)),
            Some((_, "")) => Err(UnitFault::SizeTooLarge(text.to_owned())),
            _ => Err(UnitFault::Size(text.to_owned())),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &&(&str, u64)| self.0.is_multiple_of(unit.1) && self.0 > 0;
        let (unit, factor) = SIZE_UNITS.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

text_form!(
    Time,
    "A duration, such as 500ms, 2s, 5m or 1h.",
    "^([0-9]+(ms|s|m|h|d))+$"
);
text_form!(
    Size,
    "A number of bytes, such as 512B, 64KiB or 1MiB.",
    "^[0-9]+(B|KiB|MiB|GiB)$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_in_their_largest_whole_unit() {
        for (text, millis, canonical) in [
            ("500ms", 500, "500ms"),
            ("1000ms", 1000, "1s"),
            ("90s", 90_000, "90s"),
            ("1h30m", 5_400_000, "90m"),
            ("0ms", 0, "0s"),
            ("2d", 172_800_000, "2d"),
        ] {
            let time: Time = text.parse().unwrap();
            assert_eq!(
                (time.0.as_millis(), time.to_string().as_str()),
                (millis, canonical)
            );
            assert_eq!(canonical.parse::<Time>().unwrap(), time);
        }
    }

    #[test]
    fn odd_durations_are_refused() {
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "5 s",
            "5S",
            "1sx",
            "٣s",
            "99999999999999999999",
        ] {
            assert!(
                matches!(bad.parse::<Time>(), Err(UnitFault::Time(_))),
                "{bad}"
            );
        }
        for long in ["366d", "99999999999999999999d"] {
            assert!(
                matches!(long.parse::<Time>(), Err(UnitFault::TimeTooLong(_))),
                "{long}"
            );
        }
    }

    #[test]
    fn sizes_read_and_write_in_their_largest_whole_unit() {
        for (text, bytes, canonical) in [
            ("64KiB", 65536, "64KiB"),
            ("1024B", 1024, "1KiB"),
            ("1536B", 1536, "1536B"),
            ("0B", 0, "0B"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, canonical));
        }
        for bad in ["", "64", "64KB", "64kib", "-1B", "1KiB2B"] {
            assert!(
                matches!(bad.parse::<Size>(), Err(UnitFault::Size(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            "2048GiB".parse::<Size>(),
            Err(UnitFault::SizeTooLarge(_))
        ));
    }
}
