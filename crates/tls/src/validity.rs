//! From when until when a certificate is valid.
//!
//! Owns the way to those two fields (RFC 5280, 4.1) through DER, and their text for people. Never
//! judges anything else of a certificate: that is rustls'.

/// The tags of DER that lie on the way.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The first and the last second of a certificate, since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Validity {
    /// Reads it from a certificate in DER. `None` if that is none.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate);
        let mut certificate = Der(outer.next(SEQUENCE)?);
        let mut body = Der(certificate.next(SEQUENCE)?);
        if body.tag() == Some(VERSION) {
            body.next(VERSION)?;
        }
        body.next(INTEGER)?; // the serial number
        body.next(SEQUENCE)?; // the algorithm of the signature
        body.next(SEQUENCE)?; // the issuer
        let mut validity = Der(body.next(SEQUENCE)?);
        Some(Self {
            not_before: validity.time()?,
            not_after: validity.time()?,
        })
    }
}

/// What is left of a sequence.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The content of the next element, which must have this tag.
    fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&[found, first], rest) = self.0.split_first_chunk()?;
        if found != tag {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // So many bytes of length follow; certificates of 16 MiB are none.
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                let length = digits.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// The next element, a time (RFC 5280, 4.1.2.5).
    fn time(&mut self) -> Option<u64> {
        let (text, year_digits) = match self.tag()? {
            UTC_TIME => (self.next(UTC_TIME)?, 2),
            _ => (self.next(GENERALIZED_TIME)?, 4),
        };
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        if text.len() != year_digits + 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (year, rest) = text.split_at(year_digits);
        let year: i64 = year.parse().ok()?;
        let year = match (year_digits, year) {
            (2, 50..) => 1900 + year,
            (2, _) => 2000 + year,
            _ => year,
        };
        let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
        let seconds =
            days(year, part(0)?, part(2)?) * 86_400 + part(4)? * 3_600 + part(6)? * 60 + part(8)?;
        // Before the epoch is as good as at it.
        Some(u64::try_from(seconds).unwrap_or(0))
    }
}

/// Days from the Unix epoch to a date: years begin in March, so that a leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A time since the Unix epoch, in seconds, as `2027-03-31 12:00 UTC`.
pub fn date(unix_seconds: u64) -> String {
    // Later than any certificate's year of four digits.
    let seconds = i64::try_from(unix_seconds)
        .unwrap_or(i64::MAX)
        .min(253_402_300_799);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut parameters = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = date_time_ymd(to.0, to.1, to.2);
        let key = KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_ends_are_found_in_both_forms_of_time() {
        // From 2050 on another form of time is used.
        let der = certificate((2024, 2, 29), (2050, 3, 1));
        let validity = Validity::of(&der).unwrap();
        assert_eq!(date(validity.not_before), "2024-02-29 00:00 UTC");
        assert_eq!(date(validity.not_after), "2050-03-01 00:00 UTC");
        assert_eq!(validity.not_before, 1_709_164_800);
        let old = Validity::of(&certificate((1975, 1, 1), (1999, 12, 31))).unwrap();
        assert_eq!(date(old.not_before), "1975-01-01 00:00 UTC");
        assert_eq!(date(old.not_after), "1999-12-31 00:00 UTC");
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        let der = certificate((2024, 1, 1), (2025, 1, 1));
        for length in 0..der.len() {
            // The outermost length is wrong in each of them.
            assert_eq!(Validity::of(&der[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn dates_and_days_are_inverse(day in 0_i64..2_900_000) {
            let text = date(u64::try_from(day * 86_400).unwrap());
            let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
            prop_assert_eq!(days(part(0..4), part(5..7), part(8..10)), day);
        }

        #[test]
        fn any_bytes_are_survived(at in 0_usize..400, byte: u8, tail in 0_usize..50) {
            let mut der = certificate((2024, 1, 1), (2025, 1, 1));
            let at = at % der.len();
            der[at] = byte;
            der.truncate(der.len() - tail);
            let _ = Validity::of(&der);
        }
    }
}
