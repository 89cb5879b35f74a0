//! Every example is accepted as it is, and the schema beside them is the current one.

use std::fs;
use std::path::PathBuf;

use proxy_config::{check, json_schema, parse_documents};

use crate::{compiled, routed, texts};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config-examples")
}

#[test]
fn every_example_is_accepted_without_a_warning() {
    let mut found = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let resources = parse_documents(&name, &text)
            .unwrap_or_else(|faults| panic!("{name}: {:#?}", texts(&faults)));
        // What is exported reads as the same.
        for resource in &resources {
            let again = parse_documents(&name, &resource.to_yaml()).unwrap();
            assert_eq!(&again[0], resource, "{name}");
        }
        let checked = check(&resources.into_iter().collect())
            .unwrap_or_else(|faults| panic!("{name}: {:#?}", texts(&faults)));
        assert!(
            checked.warnings().is_empty(),
            "{name}: {:#?}",
            texts(&checked.warnings())
        );
        found += 1;
    }
    assert!(found >= 5, "{found} examples");
}

#[test]
fn the_quickstart_is_what_the_demo_relies_on() {
    let text = fs::read_to_string(folder().join("quickstart.yaml")).unwrap();
    for address in ["127.0.0.1:18081", "127.0.0.1:18082"] {
        assert_eq!(
            text.matches(address).count(),
            1,
            "{address} occurs once, to be replaced"
        );
    }
    let set = parse_documents("quickstart.yaml", &text)
        .unwrap()
        .into_iter()
        .collect();
    let compiled = compiled(&set);
    let binds: Vec<_> = compiled
        .config
        .listeners
        .values()
        .map(|l| l.bind.port())
        .collect();
    assert_eq!(binds, [9000, 8080]);
    assert_eq!(
        routed(&compiled, "anything", "/green").as_deref(),
        Some("green")
    );
    for cluster in compiled.config.clusters.values() {
        assert_eq!(cluster.probe.as_ref().unwrap().every.as_millis(), 500);
    }
}

#[test]
fn the_shipped_schema_is_current() {
    let path = folder().join("skein.schema.json");
    let current = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("SKEIN_WRITE_SCHEMA").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == current,
        "run this test once with SKEIN_WRITE_SCHEMA=1 and commit the file"
    );
}

#[test]
fn what_is_said_to_who_comes_from_elsewhere_is_accepted() {
    let page = fs::read_to_string(folder().join("../docs/coming-from.md")).unwrap();
    let blocks: Vec<&str> = page
        .split("\n**Skein**\n\n```yaml\n")
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect();
    assert_eq!(blocks.len(), page.matches("\n## ").count());
    // The listener and the clusters of the first are there for all others.
    let base: proxy_config::ConfigSet = parse_documents("1", blocks[0])
        .unwrap()
        .into_iter()
        .collect();
    for (index, block) in blocks.iter().enumerate() {
        let mut set = base.clone();
        let documents = parse_documents("block", block)
            .unwrap_or_else(|faults| panic!("{}: {:#?}", index + 1, texts(&faults)));
        documents
            .into_iter()
            .for_each(|resource| set.insert(resource));
        let checked =
            check(&set).unwrap_or_else(|faults| panic!("{}: {:#?}", index + 1, texts(&faults)));
        let warnings = texts(&checked.warnings());
        assert!(warnings.is_empty(), "{}: {warnings:#?}", index + 1);
    }
}
