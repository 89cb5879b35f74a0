//! The two directions of a connection with their buffers.
//!
//! Owns buffer sizes and the gathering of writes. Never knows what the bytes mean and never waits
//! longer than its caller does (time limits are `deadline`'s).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

mod stream;
mod tls;
mod unix;

pub(crate) use stream::{Alpn, Stream};
pub(crate) use tls::HandshakeFault;
pub(crate) use unix::connect_unix;

use stream::Transport;
use tls::{RECORD_BYTES_LITTLE, Tls};

/// A connection reads at least so many bytes at a time.
const READ_BYTES_MIN: usize = 4 * 1024;
/// While bodies flow, a connection reads so many bytes at a time; nothing more is buffered before
/// the other side took them, which is the back-pressure.
const READ_BYTES_BODY: usize = 64 * 1024;
/// Data up to this size is copied behind what waits to be written, so that one system call writes
/// both; larger data is written from where it lies.
const GATHER_BYTES_MAX: usize = 16 * 1024;
/// So many bytes may wait to be written before they are.
const PENDING_BYTES_MAX: usize = 32 * 1024;

/// The reading direction.
#[derive(Debug)]
pub(crate) struct Reader {
    half: ReadHalf,
    /// What arrived and was not used yet.
    pub(crate) buffer: BytesMut,
}

#[derive(Debug)]
enum ReadHalf {
    Tcp(OwnedReadHalf),
    Tls(SharedTls),
}

/// The writing direction.
#[derive(Debug)]
pub(crate) struct Writer {
    half: WriteHalf,
    /// What waits to be written. Whoever adds to it calls [`Writer::flush`] before waiting for an
    /// answer to it.
    pub(crate) pending: Vec<u8>,
    /// Bytes written so far; of TLS, those in records of which at least a part was written.
    pub(crate) written: u64,
}

#[derive(Debug)]
enum WriteHalf {
    Tcp(OwnedWriteHalf),
    Tls(SharedTls),
}

/// Both directions of a TLS connection work on one session. They belong to one thread, and neither
/// is in the midst of anything while the other is polled.
type SharedTls = Rc<RefCell<Tls>>;

/// The two directions of `stream`.
fn split(stream: Stream) -> (Reader, Writer) {
    let (read, write) = match stream.transport {
        Transport::Tcp(tcp) => {
            let (read, write) = tcp.into_split();
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
        }
        Transport::Tls(tls) => {
            let shared = Rc::new(RefCell::new(*tls));
            (ReadHalf::Tls(shared.clone()), WriteHalf::Tls(shared))
        }
    };
    let reader = Reader {
        half: read,
        buffer: stream.ahead,
    };
    let writer = Writer {
        half: write,
        pending: Vec::new(),
        written: 0,
    };
    (reader, writer)
}

/// The two directions of one connection in one again. What is pending must be flushed before.
pub(crate) fn whole(reader: Reader, writer: Writer) -> Stream {
    debug_assert!(writer.pending.is_empty(), "nobody would write it");
    let ahead = match reader.buffer.is_empty() {
        // Its memory is not kept for nothing.
        true => BytesMut::new(),
        false => reader.buffer,
    };
    let transport = match (reader.half, writer.half) {
        (ReadHalf::Tcp(read), WriteHalf::Tcp(write)) => {
            let stream = read.reunite(write);
            Transport::Tcp(stream.expect("both are of one connection"))
        }
        (ReadHalf::Tls(read), WriteHalf::Tls(write)) => {
            drop(read);
            let tls = Rc::into_inner(write).expect("both are of one connection");
            Transport::Tls(Box::new(tls.into_inner()))
        }
        _ => unreachable!("both are of one connection"),
    };
    Stream { transport, ahead }
}

/// Drops a connection so that the other side sees that it broke: an end would look like that of
/// something whole.
pub(crate) fn reset(reader: Reader, writer: Writer) {
    let reset_on_close = |stream: &TcpStream| {
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    };
    match &reader.half {
        ReadHalf::Tcp(half) => reset_on_close(half.as_ref()),
        ReadHalf::Tls(tls) => reset_on_close(tls.borrow().socket()),
    }
    if let WriteHalf::Tcp(half) = writer.half {
        half.forget();
    }
}

/// How much a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    /// A head, or a body that may be small.
    Little,
    /// A body that is known to be larger than a buffer.
    Much,
}

impl Reader {
    /// Reads once. 0: the other side ended its direction.
    pub(crate) async fn fill(&mut self, amount: Amount) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, amount)).await
    }

    /// [`Reader::fill`] for those who wait for several things.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        amount: Amount,
    ) -> Poll<io::Result<usize>> {
        let bytes = match amount {
            Amount::Little => READ_BYTES_MIN,
            Amount::Much => READ_BYTES_BODY,
        };
        let half = match &mut self.half {
            ReadHalf::Tcp(half) => half,
            ReadHalf::Tls(tls) => {
                // What a record is around its text costs little, and its room nothing.
                let records = bytes.max(RECORD_BYTES_LITTLE);
                return tls.borrow_mut().poll_fill(cx, &mut self.buffer, records);
            }
        };
        // Room is only added when little is left: reads do not make the buffer grow.
        if self.buffer.capacity() - self.buffer.len() < bytes / 2 {
            self.buffer.reserve(bytes);
        }
        // The future has no state of its own, so it may be made anew for each poll.
        pin!(half.read_buf(&mut self.buffer)).poll(cx)
    }

    /// Ready when the connection ended or broke although nothing is expected from it. Bytes that
    /// arrive instead (a pipelined request) are kept, and then it stays pending.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.buffer.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_fill(cx, Amount::Little)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// Whether an idle connection can still be used: nothing arrived and it did not end. Costs no
    /// system call while the poller saw nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_quiet = match &self.half {
            ReadHalf::Tcp(half) => {
                let nothing = half.try_read(&mut [0]);
                nothing.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            ReadHalf::Tls(tls) => tls.borrow_mut().is_quiet(),
        };
        is_quiet && self.buffer.is_empty()
    }

    /// What the ends agreed to speak, if they said so.
    pub(crate) fn alpn(&self) -> Option<Alpn> {
        match &self.half {
            ReadHalf::Tcp(_) => None,
            ReadHalf::Tls(tls) => tls.borrow().alpn(),
        }
    }

    /// This end's address as the other side knows it: `bound`, unless that stands for all.
    pub(crate) fn local_end(&self, bound: SocketAddr) -> SocketAddr {
        if !bound.ip().is_unspecified() {
            return bound;
        }
        let told = match &self.half {
            ReadHalf::Tcp(half) => half.local_addr(),
            ReadHalf::Tls(tls) => tls.borrow().socket().local_addr(),
        };
        told.unwrap_or(bound)
    }

    /// Gives the memory of a buffer that a body made large back, while nothing is in it.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * READ_BYTES_MIN {
            self.buffer = BytesMut::new();
        }
    }
}

impl Writer {
    /// Writes `data`, together with what was pending. Small data may stay pending.
    pub(crate) async fn send(&mut self, data: &[u8]) -> io::Result<()> {
        if data.len() <= GATHER_BYTES_MAX {
            self.pending.extend_from_slice(data);
            if self.pending.len() < PENDING_BYTES_MAX {
                return Ok(());
            }
            return self.flush().await;
        }
        let half = match &mut self.half {
            WriteHalf::Tcp(half) => half,
            WriteHalf::Tls(_) => return self.write_sealed(data).await,
        };
        let mut sent = 0;
        while sent < self.pending.len() {
            let slices = [IoSlice::new(&self.pending[sent..]), IoSlice::new(data)];
            let count = nonzero(half.write_vectored(&slices).await?)?;
            self.written += count as u64;
            sent += count;
        }
        let mut rest = &data[sent - self.pending.len()..];
        self.pending.clear();
        while !rest.is_empty() {
            let count = nonzero(half.write(rest).await?)?;
            self.written += count as u64;
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Writes what is pending.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match &mut self.half {
            WriteHalf::Tcp(half) => {
                let mut sent = 0;
                while sent < self.pending.len() {
                    let count = nonzero(half.write(&self.pending[sent..]).await?)?;
                    self.written += count as u64;
                    sent += count;
                }
            }
            WriteHalf::Tls(_) => self.write_sealed(&[]).await?,
        }
        self.pending.clear();
        if self.pending.capacity() > PENDING_BYTES_MAX * 2 {
            self.pending.shrink_to(PENDING_BYTES_MAX);
        }
        Ok(())
    }

    /// Seals what is pending, and `data` behind it, and writes it.
    async fn write_sealed(&mut self, data: &[u8]) -> io::Result<()> {
        let WriteHalf::Tls(tls) = &self.half else {
            return Ok(());
        };
        let pieces = [IoSlice::new(&self.pending), IoSlice::new(data)];
        // Counted when some of it is gone: what surely was not sent may be sent elsewhere.
        let mut unsent = (self.pending.len() + data.len()) as u64;
        tls.borrow_mut().seal(&pieces);
        self.pending.clear();
        poll_fn(|cx| {
            let mut tls = tls.borrow_mut();
            while tls.has_records() {
                ready!(tls.poll_write(cx))?;
                self.written += std::mem::take(&mut unsent);
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Ends this direction, so that the other side reads an end, and knows that nothing is missing.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        match &mut self.half {
            WriteHalf::Tcp(half) => poll_fn(|cx| Pin::new(&mut *half).poll_shutdown(cx)).await,
            WriteHalf::Tls(tls) => {
                tls.borrow_mut().end();
                poll_fn(|cx| tls.borrow_mut().poll_shutdown(cx)).await
            }
        }
    }

    /// Says the end of a connection that is given up while nothing flows, without waiting: what the
    /// socket does not take at once is left out.
    pub(crate) fn say_end(&self) {
        if let WriteHalf::Tls(tls) = &self.half {
            tls.borrow_mut().say_end();
        }
    }

    /// Whether an end has to be said: one without [`Writer::finish`] looks like a cut.
    pub(crate) fn says_its_end(&self) -> bool {
        matches!(self.half, WriteHalf::Tls(_))
    }
}

fn nonzero(count: usize) -> io::Result<usize> {
    if count == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(count)
}
