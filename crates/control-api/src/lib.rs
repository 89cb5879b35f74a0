//! Skein's own control interface (`skein.v1`): changing the config, and asking about the mesh.
//!
//! Owns the messages, the clients and the server traits that `proto/control.proto` declares, and
//! the words that both sides must spell alike. Never decides: the node serves it, the command line
//! asks.

/// The generated messages, clients and servers of the package `skein.v1`. The fields are documented
/// in `proto/control.proto`.
pub mod v1 {
    // Generated code keeps its generator's style.
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        elided_lifetimes_in_paths
    )]
    #![allow(
        clippy::all,
        clippy::use_self,
        clippy::or_fun_call,
        clippy::too_many_lines
    )]
    include!("generated/skein.v1.rs");
}

/// How the message of a refused config begins; resource, path, fault and remedy follow.
pub const REFUSAL_PREFIX: &str = "skein: config refused: ";

/// The largest message either way, in bytes. A larger request is refused with `OUT_OF_RANGE` before
/// it is read; set it on clients and servers, whose own default (4 MiB) is smaller.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::v1;

    #[test]
    fn an_answer_of_a_newer_node_is_still_read() {
        let response = v1::ApplyResponse {
            config_revision: 7,
            revision: 42,
            changes: Vec::new(),
        };
        let mut bytes = response.encode_to_vec();
        // Field 99, a varint: what a later version may add.
        bytes.extend([0x98, 0x06, 0x01]);
        assert_eq!(v1::ApplyResponse::decode(&bytes[..]), Ok(response));
    }

    #[test]
    fn a_state_that_this_version_does_not_know_reads_as_unspecified() {
        let node = v1::NodeStatus {
            state: 77,
            ..Default::default()
        };
        assert_eq!(node.state(), v1::ConfigState::Unspecified);
    }
}
