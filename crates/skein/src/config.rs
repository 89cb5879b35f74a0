//! `skein config get`, `list`, `delete`, `diff` and `export`: the resources that the mesh holds.
//!
//! Owns reading them from the store by their keys. Never parses them: what a newer release wrote is
//! shown as it is.

use std::collections::BTreeMap;
use std::io::{self, Write};

use control_api::v1;
use model::CONFIG_PREFIX;
use proxy_config::{DEFAULT_NAMESPACE, Kind, Resource, ResourceId};
use serde::Serialize;
use serde_json::Value;
use store_api::etcdserverpb::{RangeRequest, RangeResponse};
use store_api::mvccpb::KeyValue;
use store_client::prefix_end;

use crate::apply::{self, Mode};
use crate::changes::{Change, Summary};
use crate::documents::Inputs;
use crate::failure::Failure;
use crate::manifest;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};
use crate::table::Table;

/// The options of `skein config get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    #[command(flatten)]
    which: Which,
}

/// The options of `skein config list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only this kind
    kind: Option<Kind>,
}

/// The options of `skein config delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    which: Which,
}

/// The options of `skein config diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    inputs: Inputs,
}

/// The options of `skein config export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {}

/// Names one resource.
#[derive(Debug, clap::Args)]
struct Which {
    /// The kind: Listener, VirtualHost, Cluster or Defaults, in any case
    kind: Kind,
    /// The name
    name: String,
}

impl Which {
    fn reference(&self, session: &Session) -> v1::ResourceRef {
        v1::ResourceRef {
            kind: self.kind.to_string(),
            namespace: session.namespace().unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            name: self.name.clone(),
        }
    }
}

fn missing(reference: &v1::ResourceRef) -> Failure {
    let label = manifest::label(&reference.kind, &reference.namespace, &reference.name);
    Failure::not_found(format!("no {label}; `skein config list` shows all"))
}

fn key(reference: &v1::ResourceRef) -> String {
    let v1::ResourceRef {
        kind,
        namespace,
        name,
    } = reference;
    format!("{CONFIG_PREFIX}{namespace}/{kind}/{name}")
}

/// All resources of a namespace, or of all.
async fn read_all(session: &Session) -> Result<RangeResponse, Failure> {
    let prefix = match session.namespace() {
        Some(namespace) => format!("{CONFIG_PREFIX}{namespace}/"),
        None => CONFIG_PREFIX.to_owned(),
    };
    let range_end = prefix_end(prefix.as_bytes());
    let request = RangeRequest {
        key: prefix.into(),
        range_end,
        ..Default::default()
    };
    Ok(session.store().range(request).await?)
}

fn revision(response: &RangeResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

impl MeshCommand for Get {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let reference = self.which.reference(session);
        let request = RangeRequest {
            key: key(&reference).into(),
            ..Default::default()
        };
        let response = session.store().range(request).await?;
        let Some(kv) = response.kvs.first() else {
            return Err(missing(&reference));
        };
        output.show(&GetReport {
            entry: Entry::of(kv),
            resource: manifest::parse(&kv.value)?,
        })
    }
}

impl MeshCommand for List {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        output.show(&ListReport::of(&read_all(session).await?, self.kind))
    }
}

impl MeshCommand for Delete {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let reference = self.which.reference(session);
        let missing = missing(&reference);
        let request = v1::ApplyRequest {
            deletes: vec![reference],
            ..Default::default()
        };
        let report = apply::send(session, request, Mode::Applied).await?;
        if report.is_empty() {
            Err(missing)
        } else {
            output.show(&report)
        }
    }
}

impl MeshCommand for Diff {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let resources = self.inputs.load(session.namespace())?;
        let prefix_end = prefix_end(CONFIG_PREFIX.as_bytes());
        let request = RangeRequest {
            key: CONFIG_PREFIX.into(),
            range_end: prefix_end,
            ..Default::default()
        };
        output.show(&DiffReport::of(
            &session.store().range(request).await?,
            &resources,
        )?)
    }
}

impl MeshCommand for Export {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        output.show(&ExportReport::of(&read_all(session).await?)?)
    }
}

/// Where a resource is, and since when.
#[derive(Debug, Serialize)]
struct Entry {
    key: String,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
}

impl Entry {
    fn of(kv: &KeyValue) -> Self {
        Self {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
        }
    }
}

/// What `config get` answers.
#[derive(Debug, Serialize)]
struct GetReport {
    #[serde(flatten)]
    entry: Entry,
    resource: Value,
}

impl Report for GetReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(manifest::yaml(&self.resource).as_bytes())
    }
}

/// What `config list` answers.
#[derive(Debug, Serialize)]
struct ListReport {
    revision: i64,
    resources: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    kind: String,
    namespace: String,
    name: String,
    #[serde(flatten)]
    entry: Entry,
}

impl ListReport {
    fn of(response: &RangeResponse, only: Option<Kind>) -> Self {
        let listed = |kv: &KeyValue| {
            let entry = Entry::of(kv);
            let mut parts = entry
                .key
                .strip_prefix(CONFIG_PREFIX)?
                .splitn(3, '/')
                .map(str::to_owned);
            let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
            let wanted = only.is_none_or(|only| kind == only.as_str());
            wanted.then_some(Listed {
                kind,
                namespace,
                name,
                entry,
            })
        };
        Self {
            revision: revision(response),
            resources: response.kvs.iter().filter_map(listed).collect(),
        }
    }
}

impl Report for ListReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&["NAMESPACE", "KIND", "NAME", "REVISION"]);
        for listed in &self.resources {
            table.row([
                listed.namespace.clone(),
                listed.kind.clone(),
                listed.name.clone(),
                listed.entry.mod_revision.to_string(),
            ]);
        }
        table.write(out)
    }
}

/// What `config diff` answers.
#[derive(Debug, Serialize)]
struct DiffReport {
    revision: i64,
    summary: Summary,
    changes: Vec<Change>,
}

impl DiffReport {
    fn of(response: &RangeResponse, resources: &[Resource]) -> Result<Self, Failure> {
        let held: BTreeMap<&[u8], &[u8]> = response
            .kvs
            .iter()
            .map(|kv| (&*kv.key, &*kv.value))
            .collect();
        let change = |resource: &Resource| {
            let ResourceId { kind, name } = resource.id();
            let reference = v1::ResourceRef {
                kind: kind.to_string(),
                namespace: name.namespace.to_string(),
                name: name.name.to_string(),
            };
            let before = held.get(resource.key().as_bytes()).copied();
            Change::between(reference, before, Some(&resource.canonical_json()))
        };
        let changes = resources
            .iter()
            .map(change)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            revision: revision(response),
            summary: Summary::of(&changes),
            changes,
        })
    }
}

impl Report for DiffReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for change in &self.changes {
            change.write_diff(out)?;
        }
        writeln!(out, "{}", self.summary.line())
    }
}

/// What `config export` answers.
#[derive(Debug, Serialize)]
struct ExportReport {
    revision: i64,
    resources: Vec<Value>,
}

impl ExportReport {
    fn of(response: &RangeResponse) -> Result<Self, Failure> {
        let resources = response.kvs.iter().map(|kv| manifest::parse(&kv.value));
        Ok(Self {
            revision: revision(response),
            resources: resources.collect::<Result<_, _>>()?,
        })
    }
}

impl Report for ExportReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for (index, resource) in self.resources.iter().enumerate() {
            if index > 0 {
                writeln!(out, "---")?;
            }
            out.write_all(manifest::yaml(resource).as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proxy_config::parse_documents;
    use serde_json::json;
    use store_api::etcdserverpb::ResponseHeader;

    use super::*;
    use crate::output::rendered;

    const DOCUMENTS: &str = "\
kind: Cluster
name: \"no\"
endpoints: [\"10.0.0.1:80\", { address: \"10.0.0.2:80\", weight: 2 }]
---
kind: Listener
namespace: team
name: edge
bind: \":8080\"
protocol: http
";

    fn documents() -> Vec<Resource> {
        parse_documents("test", DOCUMENTS).unwrap()
    }

    fn held(resources: &[Resource]) -> RangeResponse {
        let kv = |resource: &Resource| KeyValue {
            key: resource.key().into(),
            value: resource.canonical_json().into(),
            create_revision: 3,
            mod_revision: 5,
            version: 2,
            lease: 0,
        };
        RangeResponse {
            header: Some(ResponseHeader {
                revision: 9,
                ..Default::default()
            }),
            kvs: resources.iter().map(kv).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_exported_can_be_applied_as_it_is() {
        let (text, json) = rendered(&ExportReport::of(&held(&documents())).unwrap());
        assert_eq!(
            parse_documents("export", &text).unwrap(),
            documents(),
            "{text}"
        );
        assert_eq!(json["revision"], 9);
        assert_eq!(json["resources"][1]["bind"], ":8080");
    }

    #[test]
    fn a_list_is_filtered_by_kind() {
        let (text, json) = rendered(&ListReport::of(&held(&documents()), None));
        let expected = "\
NAMESPACE  KIND      NAME  REVISION
default    Cluster   no    5
team       Listener  edge  5
";
        assert_eq!(text, expected);
        assert_eq!(
            json["resources"][1],
            json!({
                "kind": "Listener", "namespace": "team", "name": "edge",
                "key": "/skein/config/team/Listener/edge",
                "create_revision": 3, "mod_revision": 5, "version": 2,
            })
        );
        let only = ListReport::of(&held(&documents()), Some(Kind::Cluster));
        assert_eq!(only.resources.len(), 1);
    }

    #[test]
    fn one_resource_is_its_yaml() {
        let response = held(&documents());
        let kv = &response.kvs[0];
        let report = GetReport {
            entry: Entry::of(kv),
            resource: manifest::parse(&kv.value).unwrap(),
        };
        let (text, json) = rendered(&report);
        assert!(text.starts_with("kind: Cluster\nname: \"no\"\n"), "{text}");
        assert_eq!(parse_documents("get", &text).unwrap(), documents()[..1]);
        assert_eq!(
            (&json["mod_revision"], &json["resource"]["name"]),
            (&json!(5), &json!("no"))
        );
    }

    #[test]
    fn a_diff_compares_and_leaves_the_rest_alone() {
        let wanted = "\
kind: Cluster
name: \"no\"
endpoints: [\"10.0.0.1:80\"]
---
kind: Cluster
name: new
endpoints: [\"10.0.0.9:80\"]
";
        let wanted = parse_documents("test", wanted).unwrap();
        let (text, json) = rendered(&DiffReport::of(&held(&documents()), &wanted).unwrap());
        assert!(text.starts_with("changed    Cluster/no\n"), "{text}");
        assert!(text.ends_with("1 created, 1 changed\n"), "{text}");
        assert_eq!(json["summary"]["deleted"], 0);
        assert_eq!(json["changes"][1]["before"], json!(null));
    }
}
