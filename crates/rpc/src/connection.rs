//! A connection as clients and strangers open it.
//!
//! Counts those that do not open as the port does, with TLS or as HTTP: they end without a word to
//! anybody. And owns one leniency. etcdctl 3.4 names an endpoint that was given as a URL by that URL, scheme
//! included (`:authority: http://host:port`), and HTTP/2 takes this for a malformed request. The
//! name of the server decides nothing here, so it is made well-formed, in place and at the same
//! length, before HTTP/2 sees it. Never looks past the first request of a connection: later ones
//! refer to the name by its index. HTTP/1.1 goes through as it is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

mod opening;

use opening::Opening;
pub use opening::Speaks;

/// How long a connection that this side ended is read on, so that nobody's last words meet a closed
/// door: the reset that answers them can cost the other side what it has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// A connection whose first request has a well-formed authority.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    /// Until the first request is through.
    opening: Option<Opening>,
    /// Set once this side has ended, to when it closes.
    linger: Option<Pin<Box<Sleep>>>,
    strangers: Counter,
}

impl<S> Connection<S> {
    pub(crate) fn new(stream: S, speaks: Speaks, strangers: Counter) -> Self {
        Self {
            stream,
            opening: Some(Opening::new(speaks)),
            linger: None,
            strangers,
        }
    }
}

impl<S: AsyncRead + Unpin> Connection<S> {
    /// Reads on until the other side has ended, too, or had the time to.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut scratch = [0; 4096];
        while linger.as_mut().poll(context).is_pending() {
            let mut last_words = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.stream).poll_read(context, &mut last_words);
            if ready!(read).is_err() || last_words.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(opening) = &mut this.opening else {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        };
        loop {
            if opening.give(buffer) {
                break;
            }
            let mut scratch = [0; 4096];
            let mut arrived = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut arrived))?;
            opening.take(arrived.filled());
            if opening.is_foreign() {
                // Nothing more is looked at, so this is said once.
                this.strangers.inc();
            }
        }
        if opening.is_over() {
            this.opening = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        this.poll_linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn connection() -> (Connection<DuplexStream>, DuplexStream) {
        let (client, stream) = duplex(1 << 16);
        let connection = Connection::new(stream, Speaks::Http2, Counter::default());
        (connection, client)
    }

    #[tokio::test]
    async fn what_ends_here_is_read_until_it_ends_there() {
        let (mut connection, mut client) = connection();
        connection.write_all(b"answer").await.unwrap();
        assert_eq!(connection.shutdown().now_or_never().map(drop), None);
        client.write_all(b"last words").await.unwrap();
        assert_eq!(connection.shutdown().now_or_never().map(drop), None);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, b"answer");
        drop(client);
        assert!(connection.shutdown().now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_never_ends_is_not_waited_for() {
        let (mut connection, _client) = connection();
        let begun = tokio::time::Instant::now();
        connection.shutdown().await.unwrap();
        assert!(begun.elapsed() >= LINGER);
    }
}
