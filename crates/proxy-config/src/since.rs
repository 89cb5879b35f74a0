//! Which version added which kind, field or word of the config.
//!
//! Owns the table, and the search of a resource for what is newer than the mesh. A node that is
//! older would refuse the resource, so it must not be accepted before every node knows it.

use model::Version;

use crate::fault::Fault;
use crate::resource::ResourceId;
use crate::tree::{Node, Value, parse_json};

/// Something that a version added. Whoever adds a field, writes it down here.
#[derive(Debug, Clone, Copy)]
struct Addition {
    /// The kind of resource, such as `Cluster`.
    kind: &'static str,
    /// The field, such as `routes.mirror`: lists are passed through. Empty: the kind itself.
    path: &'static str,
    /// The word in that field; `None`: the field, whatever is in it.
    word: Option<&'static str>,
    since: Version,
}

/// All that was added since the first version.
const ADDITIONS: &[Addition] = &[];

/// What the resource `value` under `key` uses that nodes of version `mesh` do not know. A value
/// that cannot be read uses nothing: reading it tells the fault.
pub fn newer_than(mesh: Version, key: &str, value: &[u8]) -> Vec<Fault> {
    search(ADDITIONS, mesh, key, value)
}

fn search(table: &[Addition], mesh: Version, key: &str, value: &[u8]) -> Vec<Fault> {
    let newer = || table.iter().filter(|one| one.since > mesh);
    if newer().next().is_none() {
        return Vec::new();
    }
    let (Some(id), Ok(tree)) = (ResourceId::from_key(key), parse_json(value)) else {
        return Vec::new();
    };
    let kind = id.kind.to_string();
    let mut faults = Vec::new();
    for addition in newer().filter(|one| one.kind == kind) {
        let mut found = Vec::new();
        let steps: Vec<&str> = addition
            .path
            .split('.')
            .filter(|it| !it.is_empty())
            .collect();
        find(&tree, &steps, addition.word, String::new(), &mut found);
        faults.extend(found.into_iter().map(|path| {
            let (what, since) = (addition.what(), addition.since);
            let text = format!(
                "{what} needs every node at version {since} or newer, and the mesh is at {mesh}; \
                 upgrade the older nodes first"
            );
            Fault::new(id.to_string(), path, &text)
        }));
    }
    faults
}

impl Addition {
    fn what(&self) -> String {
        match self.word {
            Some(word) => format!("`{word}`"),
            None if self.path.is_empty() => "this kind".to_owned(),
            None => "this field".to_owned(),
        }
    }
}

/// Collects the places below `node` to which `steps` lead, with `word` in them if there is one.
fn find(node: &Node, steps: &[&str], word: Option<&str>, path: String, found: &mut Vec<String>) {
    if let Value::List(items) = &node.value {
        for (index, item) in items.iter().enumerate() {
            find(item, steps, word, format!("{path}[{index}]"), found);
        }
        return;
    }
    match steps.split_first() {
        Some((step, rest)) => {
            if let Some(next) = node.field(step) {
                let dot = if path.is_empty() { "" } else { "." };
                find(next, rest, word, format!("{path}{dot}{step}"), found);
            }
        }
        None if word.is_none_or(|word| node.text() == Some(word)) && !node.is_nothing() => {
            found.push(path);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn v(minor: u16) -> Version {
        Version { major: 0, minor }
    }

    const TABLE: &[Addition] = &[
        Addition {
            kind: "VirtualHost",
            path: "routes.mirror",
            word: None,
            since: v(2),
        },
        Addition {
            kind: "Cluster",
            path: "balance",
            word: Some("maglev"),
            since: v(3),
        },
        Addition {
            kind: "Listener",
            path: "",
            word: None,
            since: v(3),
        },
    ];

    fn search(mesh: Version, kind: &str, fields: &str) -> Vec<String> {
        let key = format!("/skein/config/default/{kind}/x");
        let faults = super::search(TABLE, mesh, &key, fields.as_bytes());
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_newer_field_is_found_where_it_is_used() {
        let host = r#"{"routes":[{"to":"a"},{"to":"b","mirror":"c"}]}"#;
        assert_eq!(
            search(v(1), "VirtualHost", host),
            [
                "VirtualHost/x: routes[1].mirror: this field needs every node at version 0.2 or \
              newer, and the mesh is at 0.1; upgrade the older nodes first"
            ]
        );
        assert!(search(v(2), "VirtualHost", host).is_empty());
        assert!(search(v(1), "Cluster", host).is_empty(), "another kind");
        let unused = r#"{"routes":[{"mirror":null}],"mirror":"c"}"#;
        assert!(search(v(1), "VirtualHost", unused).is_empty());
    }

    #[test]
    fn a_newer_word_is_told_from_older_ones() {
        let found = search(v(2), "Cluster", r#"{"balance":"maglev"}"#);
        assert!(
            found[0].starts_with("Cluster/x: balance: `maglev` needs"),
            "{found:?}"
        );
        assert!(search(v(2), "Cluster", r#"{"balance":"random"}"#).is_empty());
        assert!(search(v(3), "Cluster", r#"{"balance":"maglev"}"#).is_empty());
    }

    #[test]
    fn a_newer_kind_is_refused_as_a_whole() {
        let found = search(v(2), "Listener", "{}");
        assert!(
            found[0].starts_with("Listener/x: this kind needs"),
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_to_the_reader() {
        assert!(search(v(1), "Cluster", "{").is_empty());
        assert!(super::search(TABLE, v(1), "/skein/config/odd", b"{}").is_empty());
    }

    /// Nothing may be newer than this build, or the mesh could never use it.
    #[test]
    fn the_table_names_no_future() {
        for addition in ADDITIONS {
            assert!(addition.since <= Version::THIS, "{addition:?}");
            assert!(addition.kind.parse::<crate::Kind>().is_ok(), "{addition:?}");
        }
    }
}
