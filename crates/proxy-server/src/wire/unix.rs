//! Connections to Unix sockets of the node.
//!
//! Owns the way to have them in the clothes of TCP: reading, writing, ending and polling are the same
//! calls of the system for both, so nothing behind this needs to know which it is. What is TCP's own
//! (addresses, small packets, asking a silent peer) must not be asked of them.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;

use tokio::net::{TcpStream, UnixStream};

/// A connection to the socket at this path.
pub(crate) async fn connect_unix(path: &str) -> io::Result<TcpStream> {
    let stream = UnixStream::connect(path).await.map_err(|error| {
        let fault = match error.kind() {
            io::ErrorKind::NotFound => "there is no such socket".to_owned(),
            io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
            // The queue of who listens is full.
            io::ErrorKind::WouldBlock => "it takes no more connections now".to_owned(),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("unix:{path}: {fault}"))
    })?;
    let descriptor = OwnedFd::from(stream.into_std()?);
    TcpStream::from_std(StdTcpStream::from(descriptor))
}
