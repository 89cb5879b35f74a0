//! The store's wire: etcd's client interface and Skein's own calls between nodes, as Rust types.
//!
//! Owns the `.proto` files, the code made from them (`generated`, by `tests/generated`) and etcd's literal
//! error texts.
//! Never speaks: no sockets, no state, no conversions to other crates' types.

pub mod errors;
pub mod verdict;

/// All messages and services below, described: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

/// etcd's client services and messages.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::cast_lossless,
    clippy::large_futures,
    clippy::too_many_lines,
    clippy::use_self,
    reason = "made by the protobuf compiler; the .proto file is what people read"
)]
pub mod etcdserverpb {
    include!("generated/etcdserverpb.rs");
}

/// etcd's locks.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::cast_lossless,
    clippy::large_futures,
    clippy::too_many_lines,
    clippy::use_self,
    reason = "made by the protobuf compiler; the .proto file is what people read"
)]
pub mod v3lockpb {
    include!("generated/v3lockpb.rs");
}

/// etcd's elections.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::cast_lossless,
    clippy::large_futures,
    clippy::too_many_lines,
    clippy::use_self,
    reason = "made by the protobuf compiler; the .proto file is what people read"
)]
pub mod v3electionpb {
    include!("generated/v3electionpb.rs");
}

/// etcd's rows and events.
#[allow(
    missing_docs,
    clippy::use_self,
    reason = "made by the protobuf compiler"
)]
pub mod mvccpb {
    include!("generated/mvccpb.rs");
}

/// etcd's permissions.
#[allow(
    missing_docs,
    clippy::use_self,
    reason = "made by the protobuf compiler"
)]
pub mod authpb {
    include!("generated/authpb.rs");
}

/// Skein's log, snapshots and calls between nodes.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::cast_lossless,
    clippy::large_futures,
    clippy::too_many_lines,
    clippy::use_self,
    reason = "made by the protobuf compiler; the .proto file is what people read"
)]
pub mod skeinpb {
    include!("generated/skeinpb.rs");
}
