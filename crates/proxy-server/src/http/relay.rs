//! A response on its way from the upstream to the client.
//!
//! Owns the copying of its body from one framing to the other. Reads no more than the client takes.

use http::Method;

use super::upload::send_data;
use crate::deadline::Progress;
use crate::http1::{
    BodyDecoder, Framing, HeadFault, HeadLimits, LineEnds, ResponseHead, Step, parse_response,
    response_framing, take_head, write_trailers,
};
use crate::wire::{Amount, Reader, Writer};

/// A response head may have so many bytes.
const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes_max: 64 * 1024,
    line_ends: LineEnds::Lenient,
};
/// Bodies longer than this are read in large pieces.
const MUCH: u64 = 16 * 1024;

/// Why a response head did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadEnd {
    /// The connection ended or broke.
    Reset,
    /// What came is no HTTP.
    Malformed(HeadFault),
}

/// Why a response body did not come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayFault {
    /// The upstream broke off.
    Upstream,
    /// The client takes no more.
    Client,
}

/// Reads the next response head, final or interim, into `head`; its framing.
pub(super) async fn read_head(
    reader: &mut Reader,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Framing, HeadEnd> {
    let mut scanned = 0;
    loop {
        let taken = take_head(&mut reader.buffer, &mut scanned, HEAD_LIMITS);
        if let Some(bytes) = taken.map_err(HeadEnd::Malformed)? {
            return parse_response(&bytes, head)
                .and_then(|()| response_framing(method, head))
                .map_err(HeadEnd::Malformed);
        }
        match reader.fill(Amount::Little).await {
            Ok(0) | Err(_) => return Err(HeadEnd::Reset),
            Ok(_) => {}
        }
    }
}

/// How a response goes to the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing {
    pub(super) framing: Framing,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
}

/// Copies a response body; what is pending at the client (the head) goes with its first bytes.
pub(super) async fn relay(
    upstream: &mut Reader,
    incoming: Framing,
    client: &mut Writer,
    outgoing: Outgoing,
    progress: &Progress,
) -> Result<(), RelayFault> {
    let mut decoder = BodyDecoder::new(incoming);
    let amount = match incoming {
        Framing::Length(length) if length <= MUCH => Amount::Little,
        _ => Amount::Much,
    };
    loop {
        match decoder.step(&mut upstream.buffer) {
            Ok(Step::Data(count)) => {
                let data = &upstream.buffer[..count];
                let sent = send_data(client, outgoing.framing, data).await;
                sent.map_err(|_| RelayFault::Client)?;
                decoder.consume(&mut upstream.buffer, count);
            }
            Ok(Step::More) => {
                client.flush().await.map_err(|_| RelayFault::Client)?;
                progress.mark();
                let read = upstream.fill(amount).await;
                if read.map_err(|_| RelayFault::Upstream)? == 0 {
                    decoder.at_eof().map_err(|_| RelayFault::Upstream)?;
                }
                progress.mark();
            }
            Ok(Step::End) => break,
            Err(_) => return Err(RelayFault::Upstream),
        }
    }
    if outgoing.framing == Framing::Chunked {
        let trailers = decoder.take_trailers().filter(|_| outgoing.trailers);
        write_trailers(&mut client.pending, trailers.as_ref());
    }
    client.flush().await.map_err(|_| RelayFault::Client)
}
