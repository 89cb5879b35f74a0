//! The JSON Schema of all kinds, for editors to complete and check by.
//!
//! Owns how the parts that all kinds share are put together with those of each kind. Never written
//! by hand: it follows from the types that `parse` fills.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::resource::{
    ClusterSpec, DefaultsSpec, Kind, ListenerSpec, Metadata, SCHEMA, VirtualHostSpec,
};

/// The JSON Schema (draft 2020-12) of one document.
pub fn json_schema() -> Value {
    let mut generator = SchemaGenerator::default();
    let kinds: Vec<Value> = Kind::ALL
        .into_iter()
        .map(|kind| match kind {
            Kind::Defaults => of_kind::<DefaultsSpec>(kind, &mut generator),
            Kind::Cluster => of_kind::<ClusterSpec>(kind, &mut generator),
            Kind::VirtualHost => of_kind::<VirtualHostSpec>(kind, &mut generator),
            Kind::Listener => of_kind::<ListenerSpec>(kind, &mut generator),
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A resource of Skein",
        "oneOf": kinds,
        "$defs": generator.take_definitions(true),
    })
}

fn of_kind<T: JsonSchema>(kind: Kind, generator: &mut SchemaGenerator) -> Value {
    let mut schema = Value::from(T::json_schema(generator));
    let common = Value::from(Metadata::json_schema(generator));
    let mut properties = Map::new();
    properties.insert("schema".into(), json!({ "const": SCHEMA }));
    properties.insert("kind".into(), json!({ "const": kind.as_str() }));
    for part in [&common, &schema] {
        if let Some(Value::Object(fields)) = part.get("properties") {
            properties.extend(fields.clone());
        }
    }
    let mut required = vec![json!("kind")];
    for part in [&common, &schema] {
        if let Some(Value::Array(names)) = part.get("required") {
            // There is one Defaults only: it needs no name.
            let names = names
                .iter()
                .filter(|name| kind != Kind::Defaults || **name != "name");
            required.extend(names.cloned());
        }
    }
    schema["title"] = json!(kind.as_str());
    schema["properties"] = Value::Object(properties);
    schema["required"] = Value::Array(required);
    schema
}
