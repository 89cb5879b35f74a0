//! The process's one log subscriber.
//!
//! Owns level and format. Never writes to stdout.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// What a log line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The format is neither of the two.
    #[error("`{0}` is not a log format; use `text` or `json`")]
    Format(String),
    /// `SKEIN_LOG` is not a filter.
    #[error(
        "SKEIN_LOG `{filter}` is not a log filter ({fault}); try `info` or `info,openraft=debug`"
    )]
    Filter {
        /// What the variable holds.
        filter: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Another part of the process was first.
    #[error("logging is already set up in this process")]
    Twice,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LoggingError::Format(other.to_owned())),
        }
    }
}

/// What is logged unless `SKEIN_LOG` says otherwise: our own words at `info`, and of the engines only
/// what an operator must act on (they narrate every election at `info`).
const DEFAULT_FILTER: &str = "info,openraft=error,chitchat=error,sled=error";

/// Sends the process's log to stderr in `format`, filtered by the variable `SKEIN_LOG`.
pub fn init_logging(format: LogFormat) -> Result<(), LoggingError> {
    let filter = std::env::var("SKEIN_LOG").unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|fault| LoggingError::Filter {
        fault: fault.to_string(),
        filter,
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        // A log on a full disk is lost; reporting that to stderr would fail too, and panic in
        // whoever logs: the log's writer, the very task that tells of the full disk.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LoggingError::Twice)
}
