//! Text to resources: the faults of every document are told, each with its place.
//!
//! Owns what can be said of one resource, or one input, without knowing the others of the store.
//! Never links.

mod alone;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::decode::{Finding, decode};
use crate::fault::{Fault, Location};
use crate::resource::{
    ClusterSpec, DefaultsSpec, Kind, ListenerSpec, Metadata, RESOURCE_BYTES_MAX, Resource,
    ResourceId, SCHEMA, Spec, VirtualHostSpec,
};
use crate::tree::{Entry, Node, Place, Style, SyntaxFault, Value, parse_json, parse_yaml};
use crate::words::DEFAULT_NAMESPACE;

/// Reads every document of one input, YAML or JSON; `source` names it in faults.
///
/// # Errors
/// All faults of all documents; a syntax fault, or an input above
/// [`INPUT_BYTES_MAX`](crate::INPUT_BYTES_MAX), alone.
pub fn parse_documents(source: &str, text: &str) -> Result<Vec<Resource>, Vec<Fault>> {
    parse_sources([(source, text)])
}

/// Reads several inputs as one: no resource may be written twice in them.
///
/// # Errors
/// All faults of all inputs.
pub fn parse_sources<'a>(
    sources: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<Resource>, Vec<Fault>> {
    let mut resources = Vec::new();
    let mut faults = Vec::new();
    for (source, text) in sources {
        let reader = Reader {
            file: Some(source.into()),
        };
        match parse_yaml(text) {
            Err(fault) => faults.push(reader.syntax(source, &fault)),
            Ok(documents) => {
                for (index, document) in documents.into_iter().enumerate() {
                    match reader.read(document, &format!("{source}: document {}", index + 1)) {
                        Ok(resource) => resources.push(resource),
                        Err(mut found) => faults.append(&mut found),
                    }
                }
            }
        }
    }
    let mut seen: HashMap<ResourceId, &Resource> = HashMap::new();
    for resource in &resources {
        if let Some(first) = seen.insert(resource.id(), resource) {
            let at = first
                .location
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let text = format!("it is written twice, first at {at}; keep one of them");
            let id = resource.id().to_string();
            faults.push(Fault::new(id, "", &text).at(resource.location.clone()));
        }
    }
    if faults.is_empty() {
        Ok(resources)
    } else {
        Err(faults)
    }
}

/// Reads what the store holds under `key`.
///
/// # Errors
/// All faults of the value, also where it says another kind or name than its key.
pub fn parse_value(key: &str, value: &[u8]) -> Result<Resource, Vec<Fault>> {
    let Some(id) = ResourceId::from_key(key) else {
        let text = "this is not the key of a resource; write /skein/config/<namespace>/<kind>/<name>, \
                    or use `skein apply`";
        return Err(vec![Fault::new(key, "", text)]);
    };
    let label = id.to_string();
    let reader = Reader { file: None };
    let mut resource = match parse_json(value) {
        Ok(tree) => reader.read(tree, &label)?,
        Err(fault) => return Err(vec![reader.syntax(&label, &fault)]),
    };
    if resource.id() != id {
        let text = format!(
            "the value under this key says that it is {}; write it under {}",
            resource.id(),
            resource.key()
        );
        return Err(vec![Fault::new(label, "", &text)]);
    }
    // It stays for long, and may have thousands of routes.
    if let Spec::VirtualHost(spec) = &mut resource.spec {
        spec.routes.shrink_to_fit();
    }
    Ok(resource)
}

/// Turns trees into resources.
struct Reader {
    /// The input's name; none for stored values, which have no places either.
    file: Option<Arc<str>>,
}

impl Reader {
    fn location(&self, place: Place) -> Option<Location> {
        let file = self.file.clone()?;
        (place.line > 0).then_some(Location {
            file,
            line: place.line,
            column: place.column,
        })
    }

    fn syntax(&self, label: &str, fault: &SyntaxFault) -> Fault {
        Fault::new(label, "", &fault.text).at(self.location(fault.place))
    }

    fn read(&self, tree: Node, label: &str) -> Result<Resource, Vec<Fault>> {
        let (kind, label) = self.head(&tree, label)?;
        let (metadata, rest) = split(tree, kind);
        let told = |findings: Vec<Finding>| -> Vec<Fault> {
            let fault = |finding: Finding| {
                Fault::new(&*label, finding.path, &finding.text).at(self.location(finding.place))
            };
            findings.into_iter().map(fault).collect()
        };
        let spec = match kind {
            Kind::Defaults => spec::<DefaultsSpec>(&rest).map(Spec::Defaults),
            Kind::Cluster => spec::<Box<ClusterSpec>>(&rest).map(Spec::Cluster),
            Kind::VirtualHost => spec::<VirtualHostSpec>(&rest).map(Spec::VirtualHost),
            Kind::Listener => spec::<ListenerSpec>(&rest).map(Spec::Listener),
        };
        match (decode::<Metadata>(&metadata, &[]), spec) {
            (Ok(metadata), Ok(spec)) => {
                let resource = Resource {
                    metadata,
                    spec,
                    location: self.location(rest.place),
                };
                let mut findings = alone::check(&resource);
                let size = resource.canonical_json().len();
                if size > RESOURCE_BYTES_MAX {
                    let text = format!(
                        "it has {size} bytes, more than the limit of {} KiB; split it",
                        RESOURCE_BYTES_MAX >> 10
                    );
                    findings.push(Finding {
                        path: String::new(),
                        text,
                        place: rest.place,
                    });
                }
                for finding in &mut findings {
                    finding.place = rest.locate(&finding.path);
                }
                if findings.is_empty() {
                    Ok(resource)
                } else {
                    Err(told(findings))
                }
            }
            (metadata, spec) => {
                let findings = [metadata.err(), spec.err()];
                Err(told(findings.into_iter().flatten().flatten().collect()))
            }
        }
    }

    /// The kind, and what to call this resource in faults.
    fn head(&self, tree: &Node, label: &str) -> Result<(Kind, String), Vec<Fault>> {
        let fault = |path: &str, text: &str, node: &Node| {
            vec![Fault::new(label, path, text).at(self.location(node.place))]
        };
        if !matches!(tree.value, Value::Map(_)) {
            return Err(fault(
                "",
                "expected a map of fields; begin with `kind:` and `name:`",
                tree,
            ));
        }
        let Some(node) = tree.field("kind") else {
            let text = format!("`kind` is missing; {}", Kind::suggest(""));
            return Err(fault("", &text, tree));
        };
        let word = node.text().unwrap_or_default();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| {
                fault(
                    "kind",
                    &format!("unknown kind `{word}`; {}", Kind::suggest(word)),
                    node,
                )
            })?;
        let name = match tree.field("name").and_then(Node::text) {
            Some(name) => name,
            None if kind == Kind::Defaults => "default",
            None => "?",
        };
        let label = match tree.field("namespace").and_then(Node::text) {
            Some(namespace) if namespace != "default" => format!("{kind}/{namespace}/{name}"),
            _ => format!("{kind}/{name}"),
        };
        let schema = tree.field("schema");
        let is_ours = |node: &Node| match &node.value {
            Value::Scalar(text, Style::Plain | Style::Bare) => **text == *SCHEMA.to_string(),
            _ => false,
        };
        match schema.filter(|node| !is_ours(node)) {
            Some(node) => {
                let text =
                    format!("this version reads schema {SCHEMA} only; write `schema: {SCHEMA}`");
                Err(vec![
                    Fault::new(label, "schema", &text).at(self.location(node.place)),
                ])
            }
            None => Ok((kind, label)),
        }
    }
}

fn spec<T: DeserializeOwned>(rest: &Node) -> Result<T, Vec<Finding>> {
    const COMMON_FIELDS: &[&str] = &[
        "kind",
        "schema",
        "namespace",
        "name",
        "labels",
        "annotations",
        "nodes",
    ];
    decode(rest, COMMON_FIELDS)
}

/// Parts the fields of [`Metadata`] from those of the kind; what `head` read goes.
fn split(tree: Node, kind: Kind) -> (Node, Node) {
    const HEAD_FIELDS: [&str; 2] = ["kind", "schema"];
    const METADATA_FIELDS: [&str; 5] = ["namespace", "name", "labels", "annotations", "nodes"];
    let place = tree.place;
    let (mut metadata, mut rest) = (Vec::new(), Vec::new());
    if let Value::Map(entries) = tree.value {
        for entry in entries {
            match &*entry.key {
                key if METADATA_FIELDS.contains(&key) => metadata.push(entry),
                key if HEAD_FIELDS.contains(&key) => {}
                _ => rest.push(entry),
            }
        }
    }
    // There is one Defaults only: it needs no name.
    if kind == Kind::Defaults && !metadata.iter().any(|entry| *entry.key == *"name") {
        let node = Node::new(
            Value::Scalar(DEFAULT_NAMESPACE.into(), Style::Quoted),
            place,
        );
        metadata.push(Entry {
            key: "name".into(),
            place,
            node,
        });
    }
    (
        Node::new(Value::Map(metadata), place),
        Node::new(Value::Map(rest), place),
    )
}
