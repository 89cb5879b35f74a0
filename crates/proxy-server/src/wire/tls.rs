//! TLS over a socket of ours.
//!
//! Owns the way of records between the socket and the session, both directions, which share it.
//! An end without `close_notify` is an error here: what came before may have been cut short.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tls::{Breach, Session};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::stream::Alpn;

/// At most so many bytes of records are read at a time.
const RECORD_BYTES_READ: usize = 64 * 1024;
/// More than any handshake or single record needs at once.
pub(super) const RECORD_BYTES_LITTLE: usize = 17 * 1024;

thread_local! {
    /// Where records arrive. They are opened at once, so all connections of a thread share it.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORD_BYTES_READ].into());
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeFault {
    /// The two ends do not come together.
    #[error("{0}")]
    Breach(#[from] Breach),
    /// The other end left before it said anything.
    #[error("the connection was closed before the handshake")]
    Unbegun,
    /// The other end closed the connection, or it broke.
    #[error("the connection was closed in the handshake ({0})")]
    Closed(io::Error),
}

/// A TLS connection.
#[derive(Debug)]
pub(crate) struct Tls {
    session: Session,
    socket: TcpStream,
    /// Whether anything arrived so far.
    was_heard: bool,
}

impl Tls {
    /// A connection whose handshake is yet to come.
    pub(super) fn new(session: Session, socket: TcpStream) -> Self {
        Self {
            session,
            socket,
            was_heard: false,
        }
    }

    pub(super) fn alpn(&self) -> Option<Alpn> {
        match self.session.alpn()? {
            b"h2" => Some(Alpn::Http2),
            b"http/1.1" => Some(Alpn::Http1),
            _ => None,
        }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Takes records that somebody else read.
    pub(super) fn take(&mut self, records: &[u8], plain: &mut BytesMut) -> Result<(), Breach> {
        self.was_heard |= !records.is_empty();
        self.session
            .open(records, |piece| plain.extend_from_slice(piece))
    }

    /// Goes on with the handshake. What the other end says behind it goes to `plain`.
    pub(super) fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        plain: &mut BytesMut,
    ) -> Poll<Result<(), HandshakeFault>> {
        loop {
            ready!(self.poll_flush(cx)).map_err(HandshakeFault::Closed)?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if let Err(fault) = ready!(self.poll_records(cx, plain, RECORD_BYTES_LITTLE)) {
                return Poll::Ready(Err(match fault.downcast::<Breach>() {
                    Ok(breach) => HandshakeFault::Breach(breach),
                    Err(_) if !self.was_heard => HandshakeFault::Unbegun,
                    Err(fault) => HandshakeFault::Closed(fault),
                }));
            }
        }
    }

    /// Reads until there is something to give to `plain`; how much. 0: the other end said that
    /// it sends no more.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        plain: &mut BytesMut,
        records_max: usize,
    ) -> Poll<io::Result<usize>> {
        let before = plain.len();
        while plain.len() == before {
            if self.session.was_ended() {
                return Poll::Ready(Ok(0));
            }
            ready!(self.poll_records(cx, plain, records_max))?;
        }
        Poll::Ready(Ok(plain.len() - before))
    }

    /// Reads once from the socket.
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        plain: &mut BytesMut,
        records_max: usize,
    ) -> Poll<io::Result<()>> {
        ARRIVED.with_borrow_mut(|room| {
            let records_max = records_max.min(room.len());
            let mut records = ReadBuf::new(&mut room[..records_max]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut records))?;
            if records.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.was_heard = true;
            let opened = self
                .session
                .open(records.filled(), |piece| plain.extend_from_slice(piece));
            if let Err(breach) = opened {
                // The other end is told why, if it takes that at once.
                let _ = self.poll_flush(cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, breach)));
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Whether an idle connection can still be used. Tickets may arrive on it, nothing else.
    pub(super) fn is_quiet(&mut self) -> bool {
        ARRIVED.with_borrow_mut(|room| {
            loop {
                let count = match self.socket.try_read(room) {
                    Ok(count @ 1..) => count,
                    Ok(_) => return false,
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                };
                let mut silent = true;
                let opened = self.session.open(&room[..count], |_| silent = false);
                if opened.is_err() || !silent || self.session.was_ended() {
                    return false;
                }
            }
        })
    }

    /// Makes records of these pieces, which then wait for [`Tls::poll_flush`].
    pub(super) fn seal(&mut self, pieces: &[IoSlice<'_>]) {
        self.session.seal_all(pieces);
    }

    /// Whether records wait to be written.
    pub(super) fn has_records(&self) -> bool {
        self.session.has_records()
    }

    /// Makes the record after which nothing more is sent.
    pub(super) fn end(&mut self) {
        self.session.end();
    }

    /// The same, and writes it if the socket takes it at once.
    pub(super) fn say_end(&mut self) {
        self.session.end();
        while self.session.has_records() {
            match self.session.write_records(&mut AtOnce(&self.socket)) {
                Ok(1..) => {}
                // The other side reads a cut, as if this end had died.
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Writes once of what waits.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = &mut self.socket;
        let written = self.session.write_records(&mut Socket { socket, cx });
        match written {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Writes all that waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.has_records() {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the socket's direction, after all was written.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The socket for those who do not wait.
struct AtOnce<'a>(&'a TcpStream);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket for one poll: what would wait is `WouldBlock`, and the task is woken later.
struct Socket<'a, 'c> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'c>,
}

impl io::Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn now(result: Poll<io::Result<usize>>) -> io::Result<usize> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
