//! One response of a watch stream: a small head of its own, events shared with other watchers.
//!
//! Owns the encoding. Protobuf lets the two be encoded apart: fields may come in any order and
//! repeated ones in pieces, so the events' bytes just follow the head's.

use bytes::{BufMut, Bytes};
use prost::Message;
use store_api::etcdserverpb::{WatchRequest, WatchResponse};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The buffer that each open stream holds, in bytes. Streams are many and mostly idle, so it is
/// far below tonic's 8 KiB.
const STREAM_BUFFER: usize = 1024;
/// Ready responses are sent together up to this size, in bytes.
const SEND_TOGETHER: usize = 32 * 1024;

/// A response, half encoded.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Everything but the events.
    pub(crate) head: WatchResponse,
    /// Encoded events (field 11, with tags), possibly none.
    pub(crate) events: Bytes,
}

impl From<WatchResponse> for Frame {
    fn from(head: WatchResponse) -> Self {
        Self {
            head,
            events: Bytes::new(),
        }
    }
}

/// Decodes requests with prost, encodes [`Frame`]s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Frame;
    type Decode = WatchRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for WatchCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(frame.head.encoded_len() + frame.events.len());
        frame.head.encode_raw(buffer);
        buffer.put_slice(&frame.events);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(STREAM_BUFFER, SEND_TOGETHER)
    }
}

impl Decoder for WatchCodec {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        WatchRequest::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(format!("not a watch request: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(STREAM_BUFFER, SEND_TOGETHER)
    }
}
