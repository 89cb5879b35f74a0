//! The ends that speak HTTP/1: a connection's reader and writer.
//!
//! Owns how much is read at a time and how a body is framed. The grammar is the codec's.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{FromClient, FromUpstream, HeadEnd, Sink, Source, ToClient};
use crate::http::headers::{Closing, takes_trailers, write_interim, write_response, write_switch};
use crate::http::upgrade::Switch;
use crate::http1::{
    BodyDecoder, BodyFault, Framing, HeadLimits, LineEnds, RequestHead, ResponseHead, Step,
    parse_response, response_framing, take_head, write_chunk_end, write_chunk_start,
    write_trailers,
};
use crate::wire::{Amount, Reader, Writer};

/// A response head may have so many bytes.
const HEAD_LIMITS: HeadLimits = HeadLimits {
    bytes_max: 64 * 1024,
    line_ends: LineEnds::Lenient,
};
/// Bodies longer than this are read in large pieces.
const MUCH: u64 = 16 * 1024;
/// After a read of this size the next one of a frugal reader is prepared for more.
const READ_MUCH: usize = 4 * 1024;

/// A body that arrives on a connection.
#[derive(Debug)]
pub(in crate::http) struct Received<'a> {
    reader: &'a mut Reader,
    decoder: BodyDecoder,
    amount: Amount,
    /// Reads as little as what comes, for there may be many that wait for long.
    is_frugal: bool,
}

impl<'a> Received<'a> {
    pub(in crate::http) fn new(reader: &'a mut Reader, framing: Framing) -> Self {
        Self {
            reader,
            decoder: BodyDecoder::new(framing),
            amount: match framing {
                Framing::Length(length) if length <= MUCH => Amount::Little,
                _ => Amount::Much,
            },
            is_frugal: false,
        }
    }

    fn be_tunnel(&mut self) {
        self.decoder = BodyDecoder::new(Framing::UntilClose);
        self.amount = Amount::Little;
        self.is_frugal = true;
    }

    /// Prepares the next read by how much the last one got.
    fn adapt(&mut self, count: usize) {
        self.amount = if count >= READ_MUCH {
            Amount::Much
        } else {
            Amount::Little
        };
    }

    /// Drops what arrived and nobody wants any more; whether the body is over with that, so that
    /// the next message follows.
    pub(in crate::http) fn discard_rest(&mut self) -> bool {
        while let Ok(Step::Data(count)) = self.step() {
            self.consume(count);
        }
        self.decoder.is_end()
    }
}

impl Source for Received<'_> {
    fn step(&mut self) -> Result<Step, BodyFault> {
        self.decoder.step(&mut self.reader.buffer)
    }

    async fn more(&mut self) -> Result<(), BodyFault> {
        if self.is_frugal && self.amount == Amount::Little {
            self.reader.shrink();
        }
        match self.reader.fill(self.amount).await {
            Ok(0) => self.decoder.at_eof(),
            Ok(count) => {
                if self.is_frugal {
                    self.adapt(count);
                }
                Ok(())
            }
            Err(_) => Err(BodyFault::Truncated),
        }
    }

    fn data(&self, count: usize) -> &[u8] {
        &self.reader.buffer[..count]
    }

    fn consume(&mut self, count: usize) {
        self.decoder.consume(&mut self.reader.buffer, count);
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.decoder.take(&mut self.reader.buffer, count)
    }

    fn is_over(&self) -> bool {
        self.decoder.is_end()
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.decoder.take_trailers()
    }
}

impl FromClient for Received<'_> {
    fn switch(&mut self) {
        self.be_tunnel();
    }

    fn is_untouched(&self) -> bool {
        self.reader.buffer.is_empty()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reader.poll_gone(cx)
    }
}

/// A body that goes out on a connection.
#[derive(Debug)]
pub(in crate::http) struct Sent<'a> {
    writer: &'a mut Writer,
    framing: Framing,
    /// Whether the other side takes trailers.
    trailers: bool,
    /// Whether the connection's direction ends with it.
    closes: bool,
}

impl<'a> Sent<'a> {
    /// A request's body: whether a server takes trailers cannot be asked.
    pub(in crate::http) fn new(writer: &'a mut Writer, framing: Framing) -> Self {
        Self {
            writer,
            framing,
            trailers: true,
            closes: false,
        }
    }
}

impl Sink for Sent<'_> {
    async fn send(&mut self, data: &[u8], _last: bool) -> io::Result<()> {
        if self.framing != Framing::Chunked {
            return self.writer.send(data).await;
        }
        write_chunk_start(&mut self.writer.pending, data.len());
        self.writer.send(data).await?;
        write_chunk_end(&mut self.writer.pending);
        Ok(())
    }

    async fn pass(&mut self, body: &mut impl Source, count: usize) -> io::Result<()> {
        self.send(body.data(count), false).await?;
        body.consume(count);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().await
    }

    async fn finish(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            let trailers = trailers.filter(|_| self.trailers);
            write_trailers(&mut self.writer.pending, trailers.as_ref());
        }
        self.writer.flush().await?;
        if self.closes {
            self.writer.finish().await?;
        }
        Ok(())
    }

    fn switch(&mut self) {
        self.framing = Framing::UntilClose;
        self.closes = true;
    }

    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // Whoever reads from the same connection sees it.
        Poll::Pending
    }
}

impl ToClient for Writer {
    type Body<'a> = Sent<'a>;

    async fn go_on(&mut self) -> io::Result<()> {
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        self.pending.extend_from_slice(go_on);
        self.flush().await
    }

    async fn interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        write_interim(&mut self.pending, head);
        self.flush().await
    }

    fn begin(
        &mut self,
        request: &RequestHead,
        head: &mut ResponseHead,
        closing: Closing<'_>,
    ) -> Sent<'_> {
        let framing = closing.framing;
        write_response(&mut self.pending, &request.method, head, closing);
        Sent {
            writer: self,
            framing,
            trailers: takes_trailers(&request.headers),
            closes: false,
        }
    }

    fn switch(&mut self, head: &ResponseHead, to: Switch<'_>) -> Sent<'_> {
        write_switch(&mut self.pending, head, to);
        let mut sent = Sent::new(self, Framing::UntilClose);
        sent.switch();
        sent
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl FromUpstream for Reader {
    type Body<'a> = Received<'a>;

    async fn head(&mut self, method: &Method, head: &mut ResponseHead) -> Result<Framing, HeadEnd> {
        let mut scanned = 0;
        loop {
            let taken = take_head(&mut self.buffer, &mut scanned, HEAD_LIMITS);
            if let Some(bytes) = taken.map_err(HeadEnd::Malformed)? {
                return parse_response(&bytes, head)
                    .and_then(|()| response_framing(method, head))
                    .map_err(HeadEnd::Malformed);
            }
            match self.fill(Amount::Little).await {
                Ok(0) | Err(_) => return Err(HeadEnd::Reset),
                Ok(_) => {}
            }
        }
    }

    fn body(&mut self, framing: Framing) -> Received<'_> {
        Received::new(self, framing)
    }

    fn tunnel(&mut self) -> Received<'_> {
        let mut received = Received::new(self, Framing::UntilClose);
        received.be_tunnel();
        received
    }
}
