//! The store's wire: etcd's client interface and Skein's own calls between nodes, as Rust types.
//!
//! Owns the `.proto` files, the code made from them and etcd's literal error texts.
//! Never speaks: no sockets, no state, no conversions to other crates' types.

pub mod errors;
pub mod verdict;

/// All messages and services below, described: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

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
    tonic::include_proto!("etcdserverpb");
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
    tonic::include_proto!("v3lockpb");
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
    tonic::include_proto!("v3electionpb");
}

/// etcd's rows and events.
#[allow(
    missing_docs,
    clippy::use_self,
    reason = "made by the protobuf compiler"
)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// etcd's permissions.
#[allow(
    missing_docs,
    clippy::use_self,
    reason = "made by the protobuf compiler"
)]
pub mod authpb {
    tonic::include_proto!("authpb");
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
    tonic::include_proto!("skeinpb");
}
