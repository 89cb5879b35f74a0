//! A message from JSON to protobuf's bytes and back.
//!
//! Owns etcd's choices in protobuf's JSON mapping: names as in the `.proto` files (either spelling
//! is taken), zeros left out, unknown fields ignored. Never knows a message by name: the descriptor
//! says what it is.

use bytes::Bytes;
use lifecycle::aside;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;

use crate::limits::JSON_ASIDE_BYTES;

const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(false);
const WRITE: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// Transcodes one kind of message.
#[derive(Debug, Clone)]
pub(super) struct Transcoder(MessageDescriptor);

impl Transcoder {
    pub(super) fn new(descriptor: MessageDescriptor) -> Self {
        Self(descriptor)
    }

    /// The message that the JSON text stands for, encoded.
    ///
    /// # Errors
    /// `InvalidArgument` that says where the text is wrong.
    pub(super) fn to_protobuf(&self, json: &[u8]) -> Result<Bytes, Status> {
        unhurried(json.len(), || self.encode(json))
    }

    /// The JSON text of an encoded message.
    ///
    /// # Errors
    /// `Internal` if the bytes are not such a message.
    pub(super) fn to_json(&self, message: Bytes) -> Result<Vec<u8>, Status> {
        unhurried(message.len(), || self.decode(message))
    }

    fn encode(&self, json: &[u8]) -> Result<Bytes, Status> {
        // An empty body is an empty message.
        if json.trim_ascii().is_empty() {
            return Ok(Bytes::new());
        }
        let mut reader = serde_json::Deserializer::from_slice(json);
        let message = DynamicMessage::deserialize_with_options(self.0.clone(), &mut reader, &READ)
            .and_then(|message| reader.end().map(|()| message))
            .map_err(|fault| {
                let name = self.0.name();
                // The usual mistake: what a person writes is seldom base64.
                let hint = if fault.is_data() {
                    "; bytes, such as keys, are base64"
                } else {
                    ""
                };
                Status::invalid_argument(format!("skein: no {name} in JSON: {fault}{hint}"))
            })?;
        Ok(message.encode_to_vec().into())
    }

    fn decode(&self, message: Bytes) -> Result<Vec<u8>, Status> {
        let lost = |fault: String| {
            let name = self.0.name();
            Status::internal(format!(
                "skein: this {name} cannot be told in JSON: {fault}"
            ))
        };
        let message = DynamicMessage::decode(self.0.clone(), message)
            .map_err(|fault| lost(fault.to_string()))?;
        let mut json = Vec::new();
        let mut writer = serde_json::Serializer::new(&mut json);
        message
            .serialize_with_options(&mut writer, &WRITE)
            .map_err(|fault| lost(fault.to_string()))?;
        Ok(json)
    }
}

/// Does work whose length goes with `bytes` so that it keeps no other request waiting.
fn unhurried<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes < JSON_ASIDE_BYTES {
        work()
    } else {
        aside(work)
    }
}
