//! The HTTP/1.1 codec of the request path: heads, framing and bodies.
//!
//! Owns what bytes mean (RFC 9112, strict where a lenient reading could let two parties disagree).
//! The tokenizer is `httparse`, names and values are checked by `http`; framing and chunks are
//! ours. Never does I/O, never routes, never decides about retries.

mod body;
mod framing;
mod head;
mod trailers;

pub(crate) use body::{BodyDecoder, BodyFault, Step, write_chunk_end, write_chunk_start};
pub(crate) use framing::{
    Framing, connection_tokens, is_length, request_framing, response_framing, wants_close,
    wants_keep_alive,
};
pub(crate) use head::{
    FIELDS_MAX, HeadFault, HeadLimits, LineEnds, RequestHead, ResponseHead, check_target,
    parse_request, parse_response, take_head,
};
pub(crate) use trailers::{without_forbidden, write_trailers};

#[cfg(test)]
mod tests;
