//! A resource as people write it.
//!
//! Owns the YAML form of canonical JSON. Never judges a resource: `proxy-config` does.

use proxy_config::DEFAULT_NAMESPACE;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// The resource in the store's canonical JSON.
pub(crate) fn parse(json: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        Failure::failed(format!(
            "the mesh holds a resource that is no JSON: {error}"
        ))
    })
}

/// How a resource is called: `Cluster/api`, or `Cluster/team/api` outside of `default`.
pub(crate) fn label(kind: &str, namespace: &str, name: &str) -> String {
    match namespace {
        DEFAULT_NAMESPACE | "" => format!("{kind}/{name}"),
        _ => format!("{kind}/{namespace}/{name}"),
    }
}

/// The YAML document for a resource: its name first, and nothing that goes without saying.
pub(crate) fn yaml(resource: &Value) -> String {
    let Value::Object(fields) = resource else {
        return to_yaml(resource);
    };
    let mut ordered = Map::new();
    for first in ["kind", "namespace", "name"] {
        if let Some(value) = fields.get(first) {
            ordered.insert(first.to_owned(), value.clone());
        }
    }
    for (field, value) in fields {
        ordered.entry(field).or_insert_with(|| value.clone());
    }
    ordered.shift_remove("schema");
    if ordered
        .get("namespace")
        .is_some_and(|namespace| namespace == DEFAULT_NAMESPACE)
    {
        ordered.shift_remove("namespace");
    }
    to_yaml(&Value::Object(ordered))
}

fn to_yaml(value: &Value) -> String {
    // A value stays on its line, so that a diff by lines shows which one changed.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).expect("any JSON value has a YAML form")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_name_comes_first_and_what_goes_without_saying_is_left_out() {
        let resource = json!({
            "schema": 1, "balance": "random", "name": "api",
            "namespace": "default", "kind": "Cluster",
        });
        assert_eq!(
            yaml(&resource),
            "kind: Cluster\nname: api\nbalance: random\n"
        );
        let other = json!({"kind": "Cluster", "namespace": "team", "name": "api"});
        assert_eq!(yaml(&other), "kind: Cluster\nnamespace: team\nname: api\n");
    }

    #[test]
    fn text_that_yaml_would_read_as_something_else_is_quoted() {
        let resource = json!({"name": "no", "port": ":8080", "n": "1", "long": "x ".repeat(80)});
        let read: Value = serde_saphyr::from_str(&yaml(&resource)).unwrap();
        assert_eq!(read, resource);
        assert!(!yaml(&resource).contains('>'));
    }
}
