//! How long ago something was, in few characters.
//!
//! Owns the rounding. Never reads a clock: both times come from the caller.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds from the Unix epoch to `time`; 0 for a clock set before it.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// The time from `since_ms` to `now_ms` in its largest whole unit: `3s`, `2m`, `5h`, `9d`. Empty
/// when it is not known; `0s` when the clocks disagree.
pub(crate) fn since(since_ms: Option<u64>, now_ms: u64) -> String {
    let Some(since_ms) = since_ms else {
        return String::new();
    };
    let seconds = now_ms.saturating_sub(since_ms) / 1000;
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
            (59_999, "59s"),
            (60_000, "1m"),
            (7_200_000, "2h"),
            (864_000_000, "10d"),
        ];
        for (ms, shown) in ages {
            assert_eq!(since(Some(5), 5 + ms), shown);
        }
        assert_eq!(since(Some(1_000), 0), "0s");
        assert_eq!(since(None, 1_000), "");
    }
}
