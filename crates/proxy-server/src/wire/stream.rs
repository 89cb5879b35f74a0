//! A connection as a whole: as it was opened, or for those who take it as one (HTTP/2).
//!
//! Owns what was read ahead of whoever takes it, and gives it first. Never buffers a write.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tls::Session;
use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::{HandshakeFault, RECORD_BYTES_LITTLE, Tls};
use super::{Reader, Writer};

/// So much is sealed at a time, and then waits to be written.
const SEALED_BYTES_MAX: usize = 64 * 1024;

/// A connection, both directions in one. It can be sent to another thread.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) transport: Transport,
    /// What was read and not used yet.
    pub(super) ahead: BytesMut,
}

/// What carries the bytes.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

/// What the two ends of a TLS connection agreed to speak (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    Http1,
    Http2,
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self {
            transport: Transport::Tcp(stream),
            ahead: BytesMut::new(),
        }
    }
}

impl Stream {
    /// A connection of which this was read ahead.
    pub(crate) fn with_ahead(stream: TcpStream, ahead: BytesMut) -> Self {
        Self {
            transport: Transport::Tcp(stream),
            ahead,
        }
    }

    /// A TLS connection, after its handshake, of which `records` were read ahead.
    pub(crate) async fn secure(
        stream: TcpStream,
        records: &[u8],
        session: Session,
    ) -> Result<Self, HandshakeFault> {
        let mut tls = Box::new(Tls::new(session, stream));
        let mut ahead = BytesMut::new();
        tls.take(records, &mut ahead)?;
        poll_fn(|cx| tls.poll_handshake(cx, &mut ahead)).await?;
        Ok(Self {
            transport: Transport::Tls(tls),
            ahead,
        })
    }

    /// What the ends agreed to speak, if they said so.
    pub(crate) fn alpn(&self) -> Option<Alpn> {
        match &self.transport {
            Transport::Tcp(_) => None,
            Transport::Tls(tls) => tls.alpn(),
        }
    }

    /// The session, where nobody between the ends can read along.
    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.transport {
            Transport::Tcp(_) => None,
            Transport::Tls(tls) => Some(tls.session()),
        }
    }

    /// Whether nobody between the ends can read along.
    pub(crate) fn is_tls(&self) -> bool {
        self.session().is_some()
    }

    /// Waits until something arrives, or the connection ends. May return without either.
    pub(crate) async fn stirs(&self) {
        let socket = match &self.transport {
            Transport::Tcp(stream) => stream,
            Transport::Tls(tls) => tls.socket(),
        };
        // An error is met again by who reads next.
        let _ = socket.readable().await;
    }

    /// The two directions, for a codec of ours.
    pub(crate) fn split(self) -> (Reader, Writer) {
        super::split(self)
    }

    fn read_ahead(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            match &mut this.transport {
                Transport::Tcp(stream) => return Pin::new(stream).poll_read(cx, buffer),
                Transport::Tls(tls) => {
                    ready!(tls.poll_fill(cx, &mut this.ahead, RECORD_BYTES_LITTLE))?;
                }
            }
        }
        this.read_ahead(buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tls = match &mut self.transport {
            Transport::Tcp(stream) => return Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(tls) => tls,
        };
        // What was sealed before goes first, and so nothing piles up.
        ready!(tls.poll_flush(cx))?;
        let mut room = SEALED_BYTES_MAX;
        let mut pieces = SmallVec::<[IoSlice<'_>; 16]>::new();
        for slice in slices {
            let count = slice.len().min(room);
            pieces.push(IoSlice::new(&slice[..count]));
            room -= count;
        }
        tls.seal(&pieces);
        // Whoever waits for it to be gone asks for a flush.
        let _ = tls.poll_flush(cx)?;
        Poll::Ready(Ok(SEALED_BYTES_MAX - room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(tls) => {
                // Only the first one makes a record.
                tls.end();
                tls.poll_shutdown(cx)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::{Amount, whole};
    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_first_after_the_halves_are_one_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (mut client, accepted) = tokio::try_join!(connect, listener.accept()).unwrap();
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let stream = Stream::from(accepted.0);
        assert_eq!((stream.alpn(), stream.is_tls()), (None, false));
        let (mut reader, mut writer) = stream.split();
        reader.fill(Amount::Little).await.unwrap();
        assert_eq!(&reader.buffer[..], b"PRI * HTTP/2.0");
        writer.send(b"before").await.unwrap();
        writer.flush().await.unwrap();

        let mut stream = whole(reader, writer);
        client.write_all(b"\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut first = [0; 4];
        stream.read_exact(&mut first).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&first, &*rest), (b"PRI ", "* HTTP/2.0\r\n\r\n"));
        stream.write_all(b", after").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "before, after");
    }
}
