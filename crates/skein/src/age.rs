//! How long ago something was, in few characters.
//!
//! Owns the rounding. Never reads a clock: both times come from the caller.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds from the Unix epoch to `time`; 0 for a clock set before it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The time from `began` to `now` (seconds since the Unix epoch) in its largest whole unit: `3s`,
/// `2m`, `5h`, `9d`. Empty when it is not known; `0s` when the clocks disagree.
pub(crate) fn since(began: Option<u64>, now: u64) -> String {
    let Some(began) = began else {
        return String::new();
    };
    let seconds = now.saturating_sub(began);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_whole_unit_is_shown() {
        let ages = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7_200, "2h"),
            (864_000, "10d"),
        ];
        for (seconds, shown) in ages {
            assert_eq!(since(Some(5), 5 + seconds), shown);
        }
        assert_eq!(since(Some(1_000), 0), "0s");
        assert_eq!(since(None, 1_000), "");
    }
}
