//! The pages of `docs/resources/`: made of the types' own schema, with the values that the examples
//! give, and always the current ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use proxy_config::{json_schema, parse_documents};
use serde_json::{Map, Value};

/// A longer value is no example that fits a table.
const EXAMPLE_BYTES_MAX: usize = 72;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The schema, and what the examples say to each field of each type.
struct Reference {
    schema: Value,
    examples: BTreeMap<(String, String), String>,
}

/// The examples by name, with what they begin with.
fn examples() -> Vec<(String, String)> {
    let folder = fs::read_dir(root().join("config-examples")).unwrap();
    let mut all: Vec<_> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}

impl Reference {
    fn new() -> Self {
        let mut reference = Self {
            schema: json_schema(),
            examples: BTreeMap::new(),
        };
        for (name, text) in examples() {
            for resource in parse_documents(&name, &text).unwrap() {
                let value: Value = serde_json::from_slice(&resource.canonical_json()).unwrap();
                let kind = resource.kind().to_string();
                reference.learn(&kind, &value);
            }
        }
        reference
    }

    /// Takes over the values of all fields of an object of this type.
    fn learn(&mut self, of: &str, value: &Value) {
        let (Some(fields), Some(known)) = (value.as_object(), self.fields(of)) else {
            return;
        };
        for (field, value) in fields {
            let text = value.to_string();
            if text.len() <= EXAMPLE_BYTES_MAX {
                let key = (of.to_owned(), field.clone());
                let shown = self.examples.entry(key).or_insert_with(|| text.clone());
                if text.len() < shown.len() {
                    *shown = text;
                }
            }
            let Some(schema) = known.get(field) else {
                continue;
            };
            let mut inner = BTreeSet::new();
            named(schema, &mut inner);
            for name in inner {
                let items = match value {
                    Value::Array(items) => items.iter().collect(),
                    other => vec![other],
                };
                for item in items {
                    self.learn(&name, item);
                    for other in self.behind(&name) {
                        self.learn(&other, item);
                    }
                }
            }
        }
    }

    /// A type that is one of several.
    fn behind(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if let Some(definition) = self.definition(name) {
            named(definition, &mut found);
        }
        found
    }

    fn definition(&self, name: &str) -> Option<&Value> {
        let kinds = self.schema["oneOf"].as_array().unwrap();
        let kind = kinds.iter().find(|kind| kind["title"] == name);
        kind.or_else(|| self.schema["$defs"].get(name))
    }

    fn fields(&self, name: &str) -> Option<Map<String, Value>> {
        let properties = self.definition(name)?.get("properties")?;
        properties.as_object().cloned()
    }

    /// The page of a kind.
    fn page(&self, kind: &str) -> String {
        let mut page = format!(
            "# {kind}\n\n<!-- Made of the types: change their comments, then run the tests of \
             proxy-config once with SKEIN_WRITE_SCHEMA=1. -->\n"
        );
        let mut told = BTreeSet::new();
        let mut open = VecDeque::from([kind.to_owned()]);
        while let Some(name) = open.pop_front() {
            if !told.insert(name.clone()) {
                continue;
            }
            if name != kind {
                writeln!(page, "\n## {name}").unwrap();
            }
            let definition = self.definition(&name).unwrap();
            writeln!(page, "\n{}", line(&definition["description"])).unwrap();
            self.words(definition, &mut page);
            let mut next = BTreeSet::new();
            if let Some(fields) = self.fields(&name) {
                page +=
                    "\n| field | type | left out | meaning | example |\n|---|---|---|---|---|\n";
                for (field, schema) in &fields {
                    self.row((&name, field), schema, &definition["required"], &mut page);
                    named(schema, &mut next);
                }
            }
            named(definition, &mut next);
            open.extend(next);
        }
        page
    }

    /// The words of a type that has some.
    fn words(&self, definition: &Value, page: &mut String) {
        let all = definition["oneOf"].as_array().into_iter().flatten();
        let words: Vec<_> = all
            .filter_map(|word| Some((word.get("const")?, word)))
            .collect();
        for (index, (word, about)) in words.iter().enumerate() {
            let start = if index == 0 { "\n" } else { "" };
            let word = word.as_str().unwrap_or_default();
            writeln!(page, "{start}- `{word}`: {}", line(&about["description"])).unwrap();
        }
        let plain = definition["enum"].as_array().into_iter().flatten();
        for word in plain.filter_map(Value::as_str) {
            writeln!(page, "\n- `{word}`").unwrap();
        }
    }

    fn row(&self, (of, field): (&str, &str), schema: &Value, required: &Value, page: &mut String) {
        let meaning = line(&schema["description"]);
        let needed = required
            .as_array()
            .is_some_and(|all| all.contains(&field.into()));
        let left_out = if needed {
            "needed".to_owned()
        } else {
            default(&meaning)
        };
        let key = (of.to_owned(), field.to_owned());
        let example = match self.examples.get(&key) {
            Some(value) => format!("`{field}: {value}`"),
            None => String::new(),
        };
        let cells = [
            format!("`{field}`"),
            type_of(schema),
            left_out,
            meaning,
            example,
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        writeln!(page, "| {} |", cells.join(" | ")).unwrap();
    }

    fn index(&self) -> String {
        let mut page = "# Resources\n\nEvery kind of resource, with all its fields.\n\n".to_owned();
        for kind in self.schema["oneOf"].as_array().unwrap() {
            let name = kind["title"].as_str().unwrap();
            let about = line(&kind["description"]);
            writeln!(page, "- [{name}]({}): {about}", file(name)).unwrap();
        }
        page += "\n## By example\n\n";
        for (name, text) in examples() {
            let comment = text.lines().take_while(|line| line.starts_with('#'));
            let about: Vec<_> = comment
                .map(|line| line.trim_start_matches(['#', ' ']))
                .collect();
            let about = about.join(" ");
            writeln!(page, "- [{name}](../../config-examples/{name}): {about}").unwrap();
        }
        page
    }
}

fn file(kind: &str) -> String {
    format!("{}.md", kind.to_lowercase())
}

/// A description in one line.
fn line(description: &Value) -> String {
    let text = description.as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What holds where a field is left out, as its description says.
fn default(meaning: &str) -> String {
    let said = meaning.split_once("eft out: ").map(|(_, rest)| rest);
    let end = |rest: &str| rest.find(['.', ';']).unwrap_or(rest.len());
    said.map_or_else(String::new, |rest| rest[..end(rest)].to_owned())
}

/// The definitions that a schema refers to.
fn named(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value.as_str()) {
                    ("$ref", Some(reference)) => {
                        found.extend(reference.strip_prefix("#/$defs/").map(str::to_owned));
                    }
                    ("properties", _) => {}
                    _ => named(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| named(item, found)),
        _ => {}
    }
}

fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.trim_start_matches("#/$defs/");
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(all) = schema["anyOf"].as_array() {
        let all = all.iter().filter(|one| one["type"] != "null");
        return all.map(type_of).collect::<Vec<_>>().join(" or ");
    }
    if let Some(constant) = schema.get("const") {
        return format!("`{}`", constant.to_string().trim_matches('"'));
    }
    let kind = match &schema["type"] {
        Value::Array(several) => several[0].as_str().unwrap_or_default(),
        one => one.as_str().unwrap_or_default(),
    };
    match kind {
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" => {
            let values = schema["patternProperties"].as_object();
            let value = values.and_then(|values| values.values().next());
            let value = value.unwrap_or_else(|| &schema["additionalProperties"]);
            format!("map to {}", type_of(value))
        }
        "integer" => "whole number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "string" => "text".to_owned(),
        other => other.to_owned(),
    }
}

#[test]
fn the_pages_of_all_kinds_are_current() {
    let reference = Reference::new();
    let kinds = reference.schema["oneOf"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds.map(|kind| kind["title"].as_str().unwrap()).collect();
    let mut pages = vec![("README.md".to_owned(), reference.index())];
    pages.extend(kinds.iter().map(|kind| (file(kind), reference.page(kind))));
    let folder = root().join("docs/resources");
    if std::env::var_os("SKEIN_WRITE_SCHEMA").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, page) in &pages {
            fs::write(folder.join(name), page).unwrap();
        }
    }
    for (name, page) in pages {
        let shipped = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            shipped == page,
            "docs/resources/{name}: run the tests of this crate once with SKEIN_WRITE_SCHEMA=1 and \
             commit the file"
        );
    }
}

#[test]
fn every_field_has_a_meaning_and_most_have_an_example() {
    let reference = Reference::new();
    let (mut fields, mut shown) = (0, 0);
    let definitions = reference.schema["$defs"].as_object().unwrap();
    let kinds = reference.schema["oneOf"].as_array().unwrap().iter();
    let kinds = kinds.map(|kind| kind["title"].as_str().unwrap());
    for name in kinds.chain(definitions.keys().map(String::as_str)) {
        for (field, schema) in reference.fields(name).into_iter().flatten() {
            let told = schema["description"].is_string() || schema.get("const").is_some();
            assert!(told, "{name}.{field} has no comment");
            fields += 1;
            shown += usize::from(reference.examples.contains_key(&(name.to_owned(), field)));
        }
    }
    assert!(shown * 2 > fields, "{shown} examples for {fields} fields");
}
