//! What one node says about one cluster: the text that is gossiped.
//!
//! Owns the text form, `1 <stamp> <seconds fresh> -<address> ... +<address> ...`: one space between
//! words, unhealthy endpoints first. Strict: anything else is an error. Never decides a verdict.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use crate::Verdict;

/// The version that begins the text.
const FORMAT: &str = "1";

/// The longest text, well below what one gossip message carries: about 1,600 IPv4 endpoints. At the
/// limit the last healthy verdicts are left out, which makes them unknown to others: never wrong.
pub const REPORT_BYTES_MAX: usize = 32 * 1024;

/// The longest time for which a report may call itself fresh.
pub const REPORT_FRESH_MAX: Duration = Duration::from_secs(3600);

/// One node's verdicts on the endpoints of one cluster that it probes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    /// Grows while the prober works, so that a quiet report is told from a dead prober's.
    pub stamp: u64,
    /// A report that was received longer ago counts for nothing; whole seconds, from 1 s to
    /// [`REPORT_FRESH_MAX`]. The reporter knows best how often it probes.
    pub fresh_for: Duration,
    /// The verdicts. An endpoint that is not here is unknown to this node.
    pub verdicts: BTreeMap<SocketAddr, Verdict>,
}

/// The text is not a report; it counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Longer than [`REPORT_BYTES_MAX`].
    #[error("a report of {0} bytes is longer than {REPORT_BYTES_MAX}; drop it")]
    TooLong(usize),
    /// Another version's text.
    #[error("report format `{0}` is not known to this version; upgrade this node")]
    Format(String),
    /// The stamp or the time is not a number in its range.
    #[error("report header is damaged: `{0}` is not a number in range; drop it")]
    Header(String),
    /// Neither `+address` nor `-address`, or an address twice.
    #[error("report verdict is damaged: `{0}` is not `+address` or `-address`, told once; drop it")]
    Verdict(String),
}

impl Report {
    /// The text. What would pass [`REPORT_BYTES_MAX`] is left out, healthy endpoints first.
    pub fn encode(&self) -> String {
        let seconds = self
            .fresh_for
            .as_secs()
            .clamp(1, REPORT_FRESH_MAX.as_secs());
        let mut text = format!("{FORMAT} {} {seconds}", self.stamp);
        for (kind, sign) in [(Verdict::Unhealthy, '-'), (Verdict::Healthy, '+')] {
            for (address, _) in self
                .verdicts
                .iter()
                .filter(|(_, verdict)| **verdict == kind)
            {
                let before = text.len();
                write!(text, " {sign}{address}").expect("a String takes every write");
                if text.len() > REPORT_BYTES_MAX {
                    text.truncate(before);
                    return text;
                }
            }
        }
        text
    }

    /// Reads a text strictly.
    pub fn decode(text: &str) -> Result<Self, ReportError> {
        if text.len() > REPORT_BYTES_MAX {
            return Err(ReportError::TooLong(text.len()));
        }
        let mut words = text.split(' ');
        let mut header = || words.next().unwrap_or_default();
        let format = header();
        if format != FORMAT {
            return Err(ReportError::Format(excerpt(format)));
        }
        let stamp = number(header())?;
        let seconds = header();
        let fresh_for = Duration::from_secs(number(seconds)?);
        if fresh_for.is_zero() || fresh_for > REPORT_FRESH_MAX {
            return Err(ReportError::Header(excerpt(seconds)));
        }
        let mut verdicts = BTreeMap::new();
        for word in words {
            let (address, verdict) =
                verdict(word).ok_or_else(|| ReportError::Verdict(excerpt(word)))?;
            if verdicts.insert(address, verdict).is_some() {
                return Err(ReportError::Verdict(excerpt(word)));
            }
        }
        Ok(Self {
            stamp,
            fresh_for,
            verdicts,
        })
    }
}

/// Digits only: the standard library would also take a leading `+`.
fn number(word: &str) -> Result<u64, ReportError> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if digits { word.parse().ok() } else { None };
    parsed.ok_or_else(|| ReportError::Header(excerpt(word)))
}

fn verdict(word: &str) -> Option<(SocketAddr, Verdict)> {
    let (verdict, address) = match word.split_at_checked(1)? {
        ("+", address) => (Verdict::Healthy, address),
        ("-", address) => (Verdict::Unhealthy, address),
        _ => return None,
    };
    Some((address.parse().ok()?, verdict))
}

/// The beginning of a foreign text, short enough for a log line.
fn excerpt(text: &str) -> String {
    text.chars().take(48).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_text_is_pinned_because_versions_must_agree_on_it() {
        let report = Report {
            stamp: 42,
            fresh_for: Duration::from_secs(15),
            verdicts: BTreeMap::from([
                ("10.0.0.1:8000".parse().unwrap(), Verdict::Healthy),
                ("10.0.0.2:8000".parse().unwrap(), Verdict::Unhealthy),
                ("[::1]:80".parse().unwrap(), Verdict::Healthy),
            ]),
        };
        let text = "1 42 15 -10.0.0.2:8000 +10.0.0.1:8000 +[::1]:80";
        assert_eq!(report.encode(), text);
        assert_eq!(Report::decode(text), Ok(report));
    }

    #[test]
    fn damaged_texts_are_errors() {
        for text in [
            "", " ", "2 1 15", "1", "1 ", "1 1", "1 +1 15", "1 1 0", "1 1 3601", "1 x 15",
        ] {
            assert!(Report::decode(text).is_err(), "{text:?}");
        }
        for verdict in [
            "",
            " ",
            "+",
            "10.0.0.1:80",
            "?10.0.0.1:80",
            "+10.0.0.1",
            "é",
            "+1 -1",
        ] {
            assert!(
                Report::decode(&format!("1 1 15 {verdict}")).is_err(),
                "{verdict:?}"
            );
        }
        assert!(
            Report::decode("1 1 15 +10.0.0.1:80 -10.0.0.1:80").is_err(),
            "told twice"
        );
        assert!(
            Report::decode("1 99999999999999999999 15").is_err(),
            "more than a u64"
        );
        let long = "1".repeat(REPORT_BYTES_MAX + 1);
        assert_eq!(
            Report::decode(&long),
            Err(ReportError::TooLong(REPORT_BYTES_MAX + 1))
        );
    }

    #[test]
    fn at_the_limit_healthy_verdicts_are_left_out_first() {
        let mut verdicts: BTreeMap<SocketAddr, Verdict> = (0..4000)
            .map(|port| {
                (
                    SocketAddr::from(([10, 200, 100, 1], port)),
                    Verdict::Healthy,
                )
            })
            .collect();
        let last = SocketAddr::from(([10, 200, 100, 2], 9));
        verdicts.insert(last, Verdict::Unhealthy);
        let report = Report {
            stamp: 1,
            fresh_for: Duration::from_secs(9),
            verdicts,
        };
        let text = report.encode();
        assert!(text.len() <= REPORT_BYTES_MAX);
        let read = Report::decode(&text).unwrap();
        assert_eq!(read.verdicts.get(&last), Some(&Verdict::Unhealthy));
        assert!(
            (1400..4000).contains(&read.verdicts.len()),
            "{}",
            read.verdicts.len()
        );
    }

    proptest! {
        #[test]
        fn every_report_survives_its_text(
            stamp: u64,
            seconds in 1u64..=3600,
            verdicts in prop::collection::btree_map(
                (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from),
                prop_oneof![Just(Verdict::Healthy), Just(Verdict::Unhealthy)],
                0..40,
            ),
        ) {
            let report = Report { stamp, fresh_for: Duration::from_secs(seconds), verdicts };
            prop_assert_eq!(Report::decode(&report.encode()), Ok(report));
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,80}", tail in "[0-9 .:+\\-\\[\\]]{0,80}") {
            let _ = Report::decode(&text);
            let _ = Report::decode(&format!("1 1 15 {tail}"));
        }
    }
}
