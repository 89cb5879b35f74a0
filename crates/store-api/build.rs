//! Compiles the `.proto` files without a `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/etcdserverpb.proto", "proto/skeinpb.proto"];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Keys and values are slices of the buffer they came in.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
