//! The wall clock of a worker: the Date header and time stamps of the access log.
//!
//! Owns their text, rendered at most once a second. Never used for time limits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The last rendered second.
#[derive(Debug, Default)]
pub(crate) struct WallClock {
    second: Option<u64>,
    date: String,
}

impl WallClock {
    /// Now as IMF-fixdate (RFC 9110, 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub(crate) fn date(&mut self) -> &str {
        let second = now().as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            let (year, month, day) = civil(second / 86_400);
            let weekday = WEEKDAYS[(second / 86_400 % 7) as usize];
            let month = MONTHS[month as usize - 1];
            let (hours, minutes, seconds) = clock(second);
            self.date = format!(
                "{weekday}, {day:02} {month} {year:04} {hours:02}:{minutes:02}:{seconds:02} GMT"
            );
        }
        &self.date
    }
}

/// `at` as RFC 3339 in UTC with milliseconds: `1994-11-06T08:49:37.123Z`.
pub(crate) fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let (hours, minutes, seconds) = clock(since.as_secs());
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn clock(second: u64) -> (u64, u64, u64) {
    (second / 3600 % 24, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`, for days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (784_111_777, "1994-11-06T08:49:37.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(
                timestamp(UNIX_EPOCH + Duration::from_secs(seconds)),
                expected
            );
        }
    }

    #[test]
    fn the_date_header_has_its_fixed_form() {
        let mut clock = WallClock::default();
        let date = clock.date().to_owned();
        assert_eq!(date.len(), "Sun, 06 Nov 1994 08:49:37 GMT".len());
        assert!(date.ends_with(" GMT"), "{date}");
        let second = clock.second.unwrap();
        let weekday = WEEKDAYS[(784_111_777_u64 / 86_400 % 7) as usize];
        assert_eq!(weekday, "Sun");
        assert!(second > 1_700_000_000);
    }
}
