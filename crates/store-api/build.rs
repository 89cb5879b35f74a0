//! Compiles the `.proto` files without a `protoc`.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/etcdserverpb.proto",
        "proto/v3lockpb.proto",
        "proto/v3electionpb.proto",
        "proto/skeinpb.proto",
    ];
    println!("cargo::rerun-if-changed=proto");
    let mut descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Keys and values are slices of the buffer they came in.
        .bytes(".")
        .compile_fds(descriptors.clone())?;
    // The comments are for people; the product carries the rest.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let path = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(path, descriptors.encode_to_vec())?;
    Ok(())
}
