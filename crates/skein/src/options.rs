//! The options that every command which talks to a mesh has.
//!
//! Owns their names, defaults and text forms. Never connects.

use std::time::Duration;

use crate::output::Format;

/// How to reach the mesh, and how to answer.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Options {
    /// Client addresses of some nodes of the mesh; the next one is asked when one is down
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "SKEIN_ENDPOINTS",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    pub(crate) endpoints: Vec<String>,

    /// Namespace of config resources that do not say theirs [default: `default`; for `config list`
    /// and `config export`: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// How to write results and errors; the JSON fields are stable (docs/cli.md)
    #[arg(
        short,
        long,
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    pub(crate) output: Format,

    /// How long to wait for an answer, over all endpoints
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// Reads `500ms`, `2s`, `1m` or `1h`: a whole number above 0 and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_ms))
    {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("expected a number above 0 with a unit: 500ms, 2s, 1m or 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_value() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in [
            "",
            "5",
            "0s",
            "-1s",
            "1 s",
            "s",
            "1.5s",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
