//! `skein.v1.Config`: one atomic change of many resources, or what it would change.
//!
//! Owns the translation into one guarded transaction. Never decides whether the change is good: the
//! store's admission does, here and for everybody else's writes alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use control_api::v1;
use control_api::v1::config_server::Config;
use model::ConfigRevision;
use proxy_config::{Kind, Resource, ResourceId, parse_value};
use store_api::verdict::Proposed;
use store_mvcc::{
    Command, Compare, CompareResult, CompareTarget, DeleteOp, Image, KeyRange, Op, PutOp, TxnOp,
};
use store_server::{Admission, Answer, StoreServer, caller_of};
use tonic::{Request, Response, Status};

use crate::admission::ConfigAdmission;

/// Applies config through one node's store.
#[derive(Clone)]
pub(crate) struct ConfigService {
    pub(crate) server: StoreServer,
    /// For dry runs: the judge without the vote.
    pub(crate) admission: Arc<ConfigAdmission>,
}

impl Config for ConfigService {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let server = &self.server;
        let patience = server.patience(request.metadata());
        let caller = caller_of(&request);
        let request = request.into_inner();
        let wanted = Wanted::read(&request)?;
        for _ in 0..PLANS_MAX {
            // A change is told against what is committed now, not what this node has heard of.
            // When that cannot be known, nothing was written: the caller may ask another node.
            let image = server.linearizable_image(patience).await;
            let image = image.map_err(|status| Proposed::No.mark(status))?;
            let plan = wanted.plan(&image);
            let now = (image.config_revision(), image.revision());
            let command = Command::Txn(plan.txn());
            // What is told of a resource is for those who may read its key.
            server.admit(&caller, &command, patience).await?;
            if plan.ops.is_empty() {
                return Ok(Response::new(answer(now.0, now.1, plan)));
            }
            if request.dry_run {
                self.judge(image, command).await?;
                return Ok(Response::new(answer(now.0, now.1, plan)));
            }
            let written = server.writes().submit(&caller, command, patience).await?;
            if matches!(&written.answer, Answer::Txn(txn) if txn.succeeded) {
                let (config_revision, revision) = (written.config_revision, written.revision);
                return Ok(Response::new(answer(config_revision, revision, plan)));
            }
        }
        Err(Proposed::No.mark(Status::aborted(
            "skein: others keep changing the same resources; nothing was changed, try again",
        )))
    }
}

impl ConfigService {
    async fn judge(&self, image: Image, command: Command) -> Result<(), Status> {
        let admission = Arc::clone(&self.admission);
        let judged = tokio::task::spawn_blocking(move || admission.admit(&image, &command)).await;
        match judged {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(refused(&refusal.message)),
            Err(ended) => Err(Status::internal(format!(
                "skein: the check ended early: {ended}"
            ))),
        }
    }
}

fn refused(message: &str) -> Status {
    Status::invalid_argument(format!("{}{message}", control_api::REFUSAL_PREFIX))
}

/// What a request asks for: `None` deletes.
struct Wanted(BTreeMap<String, (ResourceId, Option<Bytes>)>);

/// How often a change is planned anew because the same resources changed under it.
const PLANS_MAX: usize = 5;

/// The operations that make it so, and what each resource's change is.
struct Plan {
    /// Each wanted key is as it was when this was planned, those that stay unchanged too.
    compares: Vec<Compare>,
    ops: Vec<Op>,
    changes: Vec<v1::Change>,
}

impl Wanted {
    fn read(request: &v1::ApplyRequest) -> Result<Self, Status> {
        let mut wanted = BTreeMap::new();
        for document in &request.documents {
            let resource = resource(document)?;
            let json = Bytes::from(resource.canonical_json());
            if wanted
                .insert(resource.key(), (resource.id(), Some(json)))
                .is_some()
            {
                let label = label(&resource.id());
                return Err(refused(&format!(
                    "{label}: it is given twice; keep one of the two"
                )));
            }
        }
        for gone in &request.deletes {
            let id = id(gone)?;
            if wanted.insert(id.key(), (id.clone(), None)).is_some() {
                return Err(refused(&format!(
                    "{}: it is named twice; keep one",
                    label(&id)
                )));
            }
        }
        Ok(Self(wanted))
    }

    fn plan(&self, image: &Image) -> Plan {
        let mut plan = Plan {
            compares: Vec::new(),
            ops: Vec::new(),
            changes: Vec::new(),
        };
        for (key, (id, after)) in &self.0 {
            let row = image.get(key.as_bytes());
            plan.compares.push(Compare {
                range: KeyRange::key(key.clone()),
                result: CompareResult::Equal,
                target: CompareTarget::Mod(row.map_or(0, |row| row.mod_revision)),
            });
            let before = row.map(|row| row.value.clone());
            let action = match (&before, after) {
                (None, None) => continue,
                (Some(_), None) => {
                    plan.ops
                        .push(Op::Delete(DeleteOp::new(KeyRange::key(key.clone()))));
                    v1::Action::Deleted
                }
                (Some(before), Some(after)) if before == after => v1::Action::Unchanged,
                (before, Some(after)) => {
                    plan.ops
                        .push(Op::Put(PutOp::new(key.clone(), after.clone())));
                    if before.is_none() {
                        v1::Action::Created
                    } else {
                        v1::Action::Changed
                    }
                }
            };
            let mut change = v1::Change {
                resource: Some(reference(id)),
                before: before.unwrap_or_default(),
                after: after.clone().unwrap_or_default(),
                ..v1::Change::default()
            };
            change.set_action(action);
            plan.changes.push(change);
        }
        plan
    }
}

impl Plan {
    fn txn(&self) -> TxnOp {
        TxnOp {
            compares: self.compares.clone(),
            success: self.ops.clone(),
            failure: Vec::new(),
        }
    }
}

/// The resource of a document, parsed as strictly as any other writer's.
fn resource(document: &v1::Document) -> Result<Resource, Status> {
    let text = std::str::from_utf8(&document.json)
        .map_err(|_| refused(&format!("{}: it is not UTF-8 text", document.source)))?;
    let parsed = proxy_config::parse_documents(&document.source, text);
    let lines = |faults: &[proxy_config::Fault]| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        refused(&lines.join("\n"))
    };
    let mut resources = parsed.map_err(|faults| lines(&faults))?;
    let only = resources
        .pop()
        .filter(|_| resources.is_empty())
        .ok_or_else(|| {
            refused(&format!(
                "{}: a document must be exactly one resource",
                document.source
            ))
        })?;
    // What is stored must read back from its key.
    parse_value(&only.key(), &only.canonical_json()).map_err(|faults| lines(&faults))
}

fn id(reference: &v1::ResourceRef) -> Result<ResourceId, Status> {
    let kind: Kind = reference
        .kind
        .parse()
        .map_err(|fault: proxy_config::ParseKindError| refused(&fault.to_string()))?;
    let namespace = match reference.namespace.as_str() {
        "" => proxy_config::DEFAULT_NAMESPACE,
        given => given,
    };
    let name = proxy_config::compiled::ResourceName {
        namespace: namespace.into(),
        name: reference.name.as_str().into(),
    };
    Ok(ResourceId { kind, name })
}

fn reference(id: &ResourceId) -> v1::ResourceRef {
    v1::ResourceRef {
        kind: id.kind.as_str().to_owned(),
        namespace: id.name.namespace.to_string(),
        name: id.name.name.to_string(),
    }
}

fn label(id: &ResourceId) -> String {
    format!("{}/{}", id.kind.as_str(), id.name)
}

fn answer(config_revision: ConfigRevision, revision: i64, plan: Plan) -> v1::ApplyResponse {
    v1::ApplyResponse {
        config_revision: config_revision.0,
        revision,
        changes: plan.changes,
    }
}

#[cfg(test)]
mod tests {
    use store_mvcc::{Machine, Proposal, Response as Applied};

    use super::*;

    fn cluster(name: &str, port: u16) -> v1::Document {
        let json =
            format!(r#"{{"kind":"Cluster","name":"{name}","endpoints":["10.0.0.1:{port}"]}}"#);
        v1::Document {
            source: "in.json".to_owned(),
            json: json.into(),
        }
    }

    fn wanted(documents: &[v1::Document], deletes: &[&str]) -> Wanted {
        let named = |name: &&str| v1::ResourceRef {
            kind: "Cluster".to_owned(),
            name: (*name).to_owned(),
            ..v1::ResourceRef::default()
        };
        let request = v1::ApplyRequest {
            documents: documents.to_vec(),
            deletes: deletes.iter().map(named).collect(),
            ..v1::ApplyRequest::default()
        };
        Wanted::read(&request).unwrap()
    }

    /// Whether the plan was carried out; the guard of the config revision is admission's.
    fn apply(machine: &mut Machine, plan: &Plan) -> bool {
        let outcome = machine.apply(&Proposal {
            config_guard: Some(machine.image().config_revision()),
            ..Proposal::new(Command::Txn(plan.txn()))
        });
        match outcome.result.unwrap() {
            Applied::Txn(txn) => txn.succeeded,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plan_that_another_change_overtook_changes_nothing_and_is_made_anew() {
        let mut machine = Machine::new();
        let plan = wanted(&[cluster("a", 1), cluster("same", 1)], &[]).plan(&machine.image());
        assert!(apply(&mut machine, &plan));
        // One is changed, one stays as it is, one does not exist and is to be deleted.
        let mine = wanted(&[cluster("a", 2), cluster("same", 1)], &["gone"]);
        for theirs in [cluster("a", 3), cluster("same", 4), cluster("gone", 5)] {
            let stale = mine.plan(&machine.image());
            let other = wanted(&[theirs], &[]).plan(&machine.image());
            assert!(apply(&mut machine, &other));
            let before = machine.image().revision();
            assert!(
                !apply(&mut machine, &stale),
                "what was told is not true any more"
            );
            assert_eq!(machine.image().revision(), before);
            let fresh = mine.plan(&machine.image());
            assert_eq!(
                fresh.changes.len(),
                stale.changes.len() + fresh_deletes(&fresh)
            );
            assert!(apply(&mut machine, &fresh));
            assert!(mine.plan(&machine.image()).ops.is_empty(), "it is in force");
        }
    }

    fn fresh_deletes(plan: &Plan) -> usize {
        let deleted = |change: &&v1::Change| change.action() == v1::Action::Deleted;
        plan.changes.iter().filter(deleted).count()
    }
}
