//! `skein watch`: changes of keys as they happen.
//!
//! Owns the form of an event. Never loses or repeats one: resuming is `store-client`'s.

use std::ffi::OsString;
use std::io::{self, Write};

use serde::Serialize;
use store_api::etcdserverpb::WatchCreateRequest;
use store_api::mvccpb::Event;
use store_api::mvccpb::event::EventType;
use store_client::WatchError;

use crate::failure::Failure;
use crate::keys::range;
use crate::output::{Output, Report};
use crate::row::Row;
use crate::session::{MeshCommand, Session};

/// The options of `skein watch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// The key, or with --prefix how the keys begin (`''`: every key)
    key: OsString,
    /// All keys that begin with KEY
    #[arg(long)]
    prefix: bool,
    /// Begin with the changes of this revision, instead of with the next change
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    rev: Option<i64>,
    /// End after so many events, instead of never
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl MeshCommand for Watch {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (key, range_end) = range(&self.key, self.prefix);
        let mut watcher = session.store().watch(WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: self.rev.unwrap_or(0),
            ..Default::default()
        });
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            for event in watcher.next().await?.events {
                if left == 0 {
                    break;
                }
                if let Some(report) = EventReport::of(&event) {
                    output.stream(&report)?;
                    left -= 1;
                }
            }
        }
        Ok(())
    }
}

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Unavailable(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}

/// One change of one key.
#[derive(Debug, Serialize)]
struct EventReport {
    #[serde(rename = "type")]
    change: Change,
    #[serde(flatten)]
    row: Row,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Put,
    Delete,
}

impl EventReport {
    /// `None` for an event without a row, which etcd's interface allows and nobody sends.
    fn of(event: &Event) -> Option<Self> {
        let kv = event.kv.as_ref()?;
        Some(match event.r#type() {
            EventType::Put => Self {
                change: Change::Put,
                row: Row::of(kv),
            },
            EventType::Delete => Self {
                change: Change::Delete,
                row: Row::without_value(kv),
            },
        })
    }
}

impl Report for EventReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.change {
            Change::Put => writeln!(
                out,
                "put\t{}\t{}",
                self.row.key_line(),
                self.row.value_line()
            ),
            Change::Delete => writeln!(out, "delete\t{}", self.row.key_line()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store_api::mvccpb::KeyValue;

    use super::*;
    use crate::output::rendered;

    fn event(change: EventType) -> Event {
        let kv = KeyValue {
            key: "a".into(),
            value: if change == EventType::Put {
                "1\n2".into()
            } else {
                "".into()
            },
            mod_revision: 9,
            ..Default::default()
        };
        Event {
            r#type: change.into(),
            kv: Some(kv),
            prev_kv: None,
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let (text, json) = rendered(&EventReport::of(&event(EventType::Put)).unwrap());
        assert_eq!(text, "put\ta\t1\\n2\n");
        assert_eq!(
            json,
            json!({
                "type": "put", "key": "a", "key_base64": "YQ==",
                "value": "1\n2", "value_base64": "MQoy",
                "create_revision": 0, "mod_revision": 9, "version": 0, "lease": null,
            })
        );
        let (text, json) = rendered(&EventReport::of(&event(EventType::Delete)).unwrap());
        assert_eq!(text, "delete\ta\n");
        assert_eq!((&json["type"], json.get("value")), (&json!("delete"), None));
    }
}
