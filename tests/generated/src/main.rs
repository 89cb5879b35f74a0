//! Makes `crates/*/src/generated/` from `crates/*/proto/`, or with `--check` tells what is not as it
//! would be made now.
//!
//! Owns how the code is made. Needs no `protoc`: protox reads the files.

mod service;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use prost::Message;

use service::ClientAndServer;

/// One crate's wire.
struct Wire {
    name: &'static str,
    files: &'static [&'static str],
    /// Maps in the order of their keys, for answers that people and tests compare.
    ordered_maps: bool,
    /// The descriptors are read while running: etcd's JSON gateway speaks from them.
    descriptors: bool,
}

const WIRES: &[Wire] = &[
    Wire {
        name: "store-api",
        files: &[
            "etcdserverpb.proto",
            "v3lockpb.proto",
            "v3electionpb.proto",
            "skeinpb.proto",
        ],
        ordered_maps: false,
        descriptors: true,
    },
    Wire {
        name: "control-api",
        files: &["control.proto"],
        ordered_maps: true,
        descriptors: false,
    },
];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        other => return Err(format!("unknown arguments {other:?}; there is `--check`").into()),
    };
    let mut faults = Vec::new();
    for wire in WIRES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../crates")
            .join(wire.name);
        let made = make(wire, &folder.join("proto"))?;
        let kept = folder.join("src/generated");
        if check {
            faults.extend(differences(&kept, &made)?);
        } else {
            write(&kept, &made)?;
        }
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("make them anew: cargo run --manifest-path tests/generated/Cargo.toml");
    Ok(ExitCode::FAILURE)
}

/// The generated files by name.
fn make(wire: &Wire, protos: &Path) -> Result<BTreeMap<String, Vec<u8>>, Box<dyn Error>> {
    let mut descriptors = protox::compile(wire.files, [protos])?;
    let out = tempfile::tempdir()?;
    let mut config = prost_build::Config::new();
    config
        .out_dir(out.path())
        // Keys and values are slices of the buffer that they came in.
        .bytes(["."])
        .service_generator(Box::new(ClientAndServer {
            client: tonic_prost_build::configure()
                .build_server(false)
                .service_generator(),
        }));
    if wire.ordered_maps {
        config.btree_map(["."]);
    }
    config.compile_fds(descriptors.clone())?;
    let mut made = contents(out.path())?;
    if wire.descriptors {
        // The comments are for people; the product carries the rest.
        for file in &mut descriptors.file {
            file.source_code_info = None;
        }
        made.insert("descriptors.bin".to_owned(), descriptors.encode_to_vec());
    }
    Ok(made)
}

fn contents(folder: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, std::fs::read(entry.path())?);
    }
    Ok(files)
}

/// What is not as it was made: changed, missing, or nobody's any more.
fn differences(kept: &Path, made: &BTreeMap<String, Vec<u8>>) -> std::io::Result<Vec<String>> {
    let there = contents(kept)?;
    let path = |name: &String| -> PathBuf { kept.join(name) };
    let changed = made
        .iter()
        .filter(|(name, bytes)| there.get(*name) != Some(bytes))
        .map(|(name, _)| format!("{}: not what the .proto files say", path(name).display()));
    let left = there
        .keys()
        .filter(|name| !made.contains_key(*name))
        .map(|name| format!("{}: no .proto file makes it", path(name).display()));
    Ok(changed.chain(left).collect())
}

fn write(kept: &Path, made: &BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    std::fs::create_dir_all(kept)?;
    for name in contents(kept)?
        .keys()
        .filter(|name| !made.contains_key(*name))
    {
        std::fs::remove_file(kept.join(name))?;
    }
    for (name, bytes) in made {
        std::fs::write(kept.join(name), bytes)?;
    }
    Ok(())
}
