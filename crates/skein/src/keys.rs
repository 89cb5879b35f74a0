//! `skein put`, `get` and `del`: the store's keys.
//!
//! Owns how keys are named on the command line and what the commands answer. Never interprets a
//! value.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;
use store_api::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
};
use store_client::prefix_end;

use crate::escape;
use crate::failure::Failure;
use crate::output::{Format, Output, Report};
use crate::row::Row;
use crate::session::{MeshCommand, Session};

/// The largest value that `put KEY -` reads; the store's own limit is lower and answers for itself.
const STDIN_BYTES_MAX: u64 = 16 << 20;

/// The options of `skein put`.
#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// The key: any bytes
    key: OsString,
    /// The value: any bytes; `-` reads it from standard input
    #[arg(allow_hyphen_values = true)]
    value: OsString,
}

/// The options of `skein get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The key, or with --prefix how the keys begin (`''`: every key)
    key: OsString,
    /// All keys that begin with KEY, in order
    #[arg(long)]
    prefix: bool,
    /// As of this revision, instead of now
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    rev: Option<i64>,
    /// At most so many keys
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// Keys without their values
    #[arg(long)]
    keys_only: bool,
    /// Values as they are, byte for byte, each with a line feed after it
    #[arg(long, conflicts_with = "keys_only")]
    print_value_only: bool,
    /// Answer from the copy of the node that is asked: works without a quorum, may be behind
    #[arg(long)]
    local: bool,
}

/// The options of `skein del`.
#[derive(Debug, clap::Args)]
pub(crate) struct Del {
    /// The key, or with --prefix how the keys begin
    key: OsString,
    /// All keys that begin with KEY
    #[arg(long)]
    prefix: bool,
}

/// The key and `range_end` of etcd's requests.
pub(crate) fn range(key: &OsStr, prefix: bool) -> (Vec<u8>, Vec<u8>) {
    let key = key.as_bytes().to_vec();
    match (prefix, key.is_empty()) {
        (false, _) => (key, Vec::new()),
        // A range must have a key: the smallest one stands for "from the beginning".
        (true, true) => (vec![0], vec![0]),
        (true, false) => {
            let end = prefix_end(&key).to_vec();
            (key, end)
        }
    }
}

impl MeshCommand for Put {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let value = match self.value.as_bytes() {
            b"-" => value_from(io::stdin().lock())?,
            value => value.to_vec(),
        };
        let key = self.key.as_bytes().to_vec();
        let request = PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        output.show(&PutReport::of(&session.store().put(request).await?))
    }
}

fn value_from(input: impl Read) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    input
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut value)
        .map_err(|error| {
            Failure::failed(format!(
                "cannot read the value from standard input: {error}"
            ))
        })?;
    if value.len() as u64 > STDIN_BYTES_MAX {
        let max = STDIN_BYTES_MAX >> 20;
        return Err(Failure::failed(format!(
            "the value on standard input is larger than {max} MiB"
        )));
    }
    Ok(value)
}

impl MeshCommand for Get {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        if self.print_value_only && output.format() == Format::Json {
            let text = "--print-value-only and -o json exclude each other: \
                        JSON holds the bytes in value_base64";
            return Err(Failure::usage(text));
        }
        let (key, range_end) = range(&self.key, self.prefix);
        let request = RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            limit: self.limit.unwrap_or(0),
            revision: self.rev.unwrap_or(0),
            keys_only: self.keys_only,
            serializable: self.local,
            ..Default::default()
        };
        let response = session.store().range(request).await?;
        if response.kvs.is_empty() && !self.prefix {
            let key = escape::line(self.key.as_bytes());
            return Err(Failure::not_found(format!("no key `{key}`")));
        }
        if self.print_value_only {
            let values = response
                .kvs
                .iter()
                .flat_map(|kv| kv.value.iter().chain(b"\n"));
            return output.raw(&values.copied().collect::<Vec<_>>());
        }
        output.show(&GetReport::of(&response, &self))
    }
}

impl MeshCommand for Del {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (key, range_end) = range(&self.key, self.prefix);
        let request = DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        let response = session.store().delete_range(request).await?;
        if response.deleted == 0 && !self.prefix {
            let key = escape::line(self.key.as_bytes());
            return Err(Failure::not_found(format!("no key `{key}`")));
        }
        output.show(&DelReport::of(&response))
    }
}

/// What `put` answers.
#[derive(Debug, Serialize)]
struct PutReport {
    revision: i64,
}

impl PutReport {
    fn of(response: &PutResponse) -> Self {
        Self {
            revision: response.header.as_ref().map_or(0, |header| header.revision),
        }
    }
}

impl Report for PutReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "revision {}", self.revision)
    }
}

/// What `del` answers.
#[derive(Debug, Serialize)]
struct DelReport {
    revision: i64,
    deleted: i64,
}

impl DelReport {
    fn of(response: &DeleteRangeResponse) -> Self {
        Self {
            revision: response.header.as_ref().map_or(0, |header| header.revision),
            deleted: response.deleted,
        }
    }
}

impl Report for DelReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let keys = if self.deleted == 1 { "key" } else { "keys" };
        writeln!(
            out,
            "{} {keys} deleted, revision {}",
            self.deleted, self.revision
        )
    }
}

/// What `get` answers.
#[derive(Debug, Serialize)]
struct GetReport {
    revision: i64,
    count: i64,
    more: bool,
    rows: Vec<Row>,
    #[serde(skip)]
    shape: Shape,
}

/// What a line of text shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Value,
    Key,
    KeyAndValue,
}

impl GetReport {
    fn of(response: &RangeResponse, asked: &Get) -> Self {
        let row = |kv| {
            if asked.keys_only {
                Row::without_value(kv)
            } else {
                Row::of(kv)
            }
        };
        Self {
            revision: response.header.as_ref().map_or(0, |header| header.revision),
            count: response.count,
            more: response.more,
            rows: response.kvs.iter().map(row).collect(),
            shape: match (asked.keys_only, asked.prefix) {
                (true, _) => Shape::Key,
                (false, true) => Shape::KeyAndValue,
                (false, false) => Shape::Value,
            },
        }
    }
}

impl Report for GetReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for row in &self.rows {
            match self.shape {
                Shape::Key => writeln!(out, "{}", row.key_line())?,
                Shape::KeyAndValue => writeln!(out, "{}\t{}", row.key_line(), row.value_line())?,
                Shape::Value => writeln!(out, "{}", row.value_block())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store_api::etcdserverpb::ResponseHeader;
    use store_api::mvccpb::KeyValue;

    use super::*;
    use crate::output::rendered;

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader {
            revision: 7,
            ..Default::default()
        })
    }

    fn response() -> RangeResponse {
        let row = |key: &'static [u8], value: &'static [u8]| KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision: 3,
            mod_revision: 5,
            version: 2,
            lease: 0,
        };
        let kvs = vec![row(b"app/a", b"two\nlines"), row(b"app/\xff", b"\x00")];
        RangeResponse {
            header: header(),
            kvs,
            more: true,
            count: 3,
        }
    }

    fn asked(prefix: bool, keys_only: bool) -> Get {
        Get {
            key: "app/".into(),
            prefix,
            rev: None,
            limit: None,
            keys_only,
            print_value_only: false,
            local: false,
        }
    }

    #[test]
    fn a_range_is_one_key_a_prefix_or_everything() {
        assert_eq!(range("a".as_ref(), false), (b"a".to_vec(), Vec::new()));
        assert_eq!(range("a".as_ref(), true), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(range("".as_ref(), true), (b"\0".to_vec(), b"\0".to_vec()));
    }

    #[test]
    fn get_shows_every_byte() {
        let (text, json) = rendered(&GetReport::of(&response(), &asked(true, false)));
        assert_eq!(text, "app/a\ttwo\\nlines\napp/\\xff\t\\x00\n");
        assert_eq!(json["revision"], 7);
        assert_eq!((&json["count"], &json["more"]), (&json!(3), &json!(true)));
        assert_eq!(
            json["rows"][1],
            json!({
                "key": null, "key_base64": "YXBwL/8=",
                "value": "\u{0}", "value_base64": "AA==",
                "create_revision": 3, "mod_revision": 5, "version": 2, "lease": null,
            })
        );
    }

    #[test]
    fn one_key_is_its_value_and_keys_only_has_none() {
        let (text, _) = rendered(&GetReport::of(&response(), &asked(false, false)));
        assert!(text.starts_with("two\nlines\n"), "{text}");
        let (text, json) = rendered(&GetReport::of(&response(), &asked(true, true)));
        assert_eq!(text, "app/a\napp/\\xff\n");
        assert!(json["rows"][0].get("value").is_none());
    }

    #[test]
    fn put_and_del_tell_the_revision() {
        let put = PutReport::of(&PutResponse {
            header: header(),
            ..Default::default()
        });
        assert_eq!(
            rendered(&put),
            ("revision 7\n".into(), json!({"revision": 7}))
        );
        let response = |deleted| DeleteRangeResponse {
            header: header(),
            deleted,
            ..Default::default()
        };
        let (text, json) = rendered(&DelReport::of(&response(1)));
        assert_eq!(
            (&*text, json),
            (
                "1 key deleted, revision 7\n",
                json!({"revision": 7, "deleted": 1})
            )
        );
        assert_eq!(
            rendered(&DelReport::of(&response(0))).0,
            "0 keys deleted, revision 7\n"
        );
    }

    #[test]
    fn a_value_from_standard_input_is_taken_byte_for_byte() {
        assert_eq!(value_from(&b"\xffa\n"[..]), Ok(b"\xffa\n".to_vec()));
        assert!(value_from(io::repeat(0).take(STDIN_BYTES_MAX + 1)).is_err());
    }
}
