//! One TLS connection over the caller's buffers: bytes in, bytes out.
//!
//! Owns the handshake and the records. Never touches a socket and never waits: who drives it does
//! both, in whatever pieces it likes.

use std::fmt;
use std::io::{self, BufRead as _, IoSlice, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::breach::Breach;
#[cfg(test)]
use crate::breach::BreachClass;

/// One end of a TLS connection.
pub struct Session {
    connection: Connection,
    ended: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the connection: it has the keys.
        f.write_str("Session")
    }
}

impl Session {
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, Breach> {
        let connection = ServerConnection::new(config).map_err(|fault| Breach::of(&fault))?;
        Ok(Self::new(connection.into()))
    }

    pub(crate) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Breach> {
        let connection = ClientConnection::new(config, name).map_err(|fault| Breach::of(&fault))?;
        Ok(Self::new(connection.into()))
    }

    fn new(mut connection: Connection) -> Self {
        // Its limit is the caller's: who seals writes before it seals more.
        connection.set_buffer_limit(None);
        Self {
            connection,
            ended: false,
        }
    }

    /// Takes what arrived; what it says goes to `plain`, piece by piece. After a breach there may
    /// be a last word to write (an alert).
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn open(&mut self, mut arrived: &[u8], mut plain: impl FnMut(&[u8])) -> Result<(), Breach> {
        while !arrived.is_empty() {
            // Nothing counts that comes after the end.
            if self
                .connection
                .read_tls(&mut arrived)
                .map_err(Breach::other)?
                == 0
            {
                break;
            }
            let state = self.connection.process_new_packets();
            let state = state.map_err(|fault| Breach::of(&fault))?;
            self.ended = state.peer_has_closed();
            if state.plaintext_bytes_to_read() == 0 {
                continue;
            }
            let mut reader = self.connection.reader();
            while let Ok(piece @ [_, ..]) = reader.fill_buf() {
                let count = piece.len();
                plain(piece);
                reader.consume(count);
            }
        }
        Ok(())
    }

    /// Whether the handshake is not over yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the other end said that it sends no more. Without that, an end is a cut.
    pub fn was_ended(&self) -> bool {
        self.ended
    }

    /// Makes records of these pieces, which follow each other; they then wait to be written.
    pub fn seal_all(&mut self, pieces: &[IoSlice<'_>]) {
        let whole: usize = pieces.iter().map(|piece| piece.len()).sum();
        let sealed = self.connection.writer().write_vectored(pieces);
        debug_assert_eq!(sealed.ok(), Some(whole), "there is no limit");
    }

    /// Makes the record that says that this end sends no more.
    pub fn end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether records wait to be written.
    pub fn has_records(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes records, in one call of `write_vectored`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_records(&mut self, out: &mut dyn io::Write) -> io::Result<usize> {
        self.connection.write_tls(out)
    }

    /// The protocol that both ends agreed on (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Whether the handshake went on from an earlier connection.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Whether the other end showed a certificate that was accepted.
    pub fn has_peer_certificate(&self) -> bool {
        self.connection
            .peer_certificates()
            .is_some_and(|chain| !chain.is_empty())
    }
}

#[cfg(test)]
mod tests;
