//! The first message of a TLS connection: which name it asks for, and which protocols it offers.
//! (RFC 8446, 4.1.2 and 5.1; RFC 6066, 3; RFC 7301, 3.1)
//!
//! Owns the reading of it, of any version from SSL 3 on, and whatever is in it beyond that: who
//! answers it decides what is acceptable. What could be read in two ways is refused, though, for the
//! upstream must not read another name than we did. Never ends TLS and never reads from a socket.

/// A first message takes so many bytes at most, with the records around it (Envoy's).
pub(crate) const HELLO_BYTES_MAX: usize = 16 * 1024;
const RECORD_HEADER_BYTES: usize = 5;
/// What a record may carry (RFC 8446, 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
const CONTENT_HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const MESSAGE_HEADER_BYTES: usize = 4;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const RANDOM_BYTES: usize = 32;
const SESSION_ID_BYTES_MAX: usize = 32;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;
/// The longest name, with the dot of the root.
const NAME_BYTES_MAX: usize = 254;

/// What a connection asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClientHello {
    /// In lower case, without a dot at its end.
    pub(crate) server_name: Option<Box<str>>,
    /// The list as it was sent, each name behind its length.
    alpn: Box<[u8]>,
}

/// Why it cannot be known what a connection asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HelloFault {
    #[error("it does not begin with TLS")]
    NotTls,
    #[error("its first message is longer than {HELLO_BYTES_MAX} bytes")]
    TooLarge,
    #[error("its first message is not one of TLS, or could be read in two ways")]
    Malformed,
}

impl ClientHello {
    /// Whether it offers a protocol.
    pub(crate) fn offers(&self, protocol: &str) -> bool {
        let mut list = Bytes(&self.alpn);
        while let Some(name) = list.short() {
            if name == protocol.as_bytes() {
                return true;
            }
        }
        false
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut body = Bytes(body);
        let [MAJOR_VERSION, _] = body.take(2)? else {
            return None;
        };
        body.take(RANDOM_BYTES)?;
        let session_id = body.short()?;
        let cipher_suites = body.long()?;
        let compressions = body.short()?;
        let fits = session_id.len() <= SESSION_ID_BYTES_MAX
            && !cipher_suites.is_empty()
            && cipher_suites.len().is_multiple_of(2)
            && !compressions.is_empty();
        if !fits {
            return None;
        }
        let mut hello = Self::default();
        // The oldest versions have no extensions.
        if body.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = Bytes(body.long()?);
        if !body.0.is_empty() {
            return None;
        }
        let mut offered = false;
        while !extensions.0.is_empty() {
            let kind = extensions.number()?;
            let mut data = Bytes(extensions.long()?);
            match kind {
                EXTENSION_SERVER_NAME if hello.server_name.is_none() => {
                    hello.server_name = Some(server_name(&mut data)?);
                }
                EXTENSION_ALPN if !offered => {
                    offered = true;
                    hello.alpn = protocols(&mut data)?.into();
                }
                EXTENSION_SERVER_NAME | EXTENSION_ALPN => return None,
                _ => {}
            }
        }
        Some(hello)
    }
}

/// The one name of the list, which there has to be.
fn server_name(data: &mut Bytes<'_>) -> Option<Box<str>> {
    let mut list = Bytes(data.long()?);
    let [NAME_TYPE_HOST] = list.take(1)? else {
        return None;
    };
    let name = list.long()?;
    let visible = name.iter().all(u8::is_ascii_graphic);
    if !data.0.is_empty() || !list.0.is_empty() || !visible || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then(|| name.to_ascii_lowercase().into())
}

/// The list of protocols, whose names are whole and not empty.
fn protocols<'a>(data: &mut Bytes<'a>) -> Option<&'a [u8]> {
    let all = data.long()?;
    let mut list = Bytes(all);
    while !list.0.is_empty() {
        list.short().filter(|name| !name.is_empty())?;
    }
    (data.0.is_empty() && !all.is_empty()).then_some(all)
}

/// Reads the first message while it arrives.
#[derive(Debug, Default)]
pub(crate) struct HelloReader {
    /// What whole records carried so far.
    message: Vec<u8>,
    /// The bytes of these records.
    taken: usize,
}

impl HelloReader {
    /// Looks at all bytes of a connection so far, those that it was shown before among them. `None`:
    /// more are needed.
    pub(crate) fn look(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, HelloFault> {
        loop {
            if let Some(hello) = self.whole()? {
                return Ok(Some(hello));
            }
            let record = bytes.get(self.taken..).unwrap_or_default();
            let is_first = self.taken == 0;
            match (record.first(), record.get(1)) {
                (Some(&CONTENT_HANDSHAKE), None | Some(&MAJOR_VERSION)) => {}
                (None, _) => return self.room_for(1),
                _ if is_first => return Err(HelloFault::NotTls),
                _ => return Err(HelloFault::Malformed),
            }
            let Some((header, rest)) = record.split_first_chunk::<RECORD_HEADER_BYTES>() else {
                return self.room_for(RECORD_HEADER_BYTES);
            };
            let [_, _, _, high, low] = *header;
            let length = usize::from(u16::from_be_bytes([high, low]));
            if !(1..=RECORD_BYTES_MAX).contains(&length) {
                return Err(HelloFault::Malformed);
            }
            let awaited = self.room_for(RECORD_HEADER_BYTES + length)?;
            let Some(carried) = rest.get(..length) else {
                return Ok(awaited);
            };
            self.message.extend_from_slice(carried);
            self.taken += RECORD_HEADER_BYTES + length;
        }
    }

    /// The message, if it is whole.
    fn whole(&self) -> Result<Option<ClientHello>, HelloFault> {
        let Some((header, body)) = self.message.split_first_chunk::<MESSAGE_HEADER_BYTES>() else {
            return Ok(None);
        };
        let [kind, high, middle, low] = *header;
        if kind != MESSAGE_CLIENT_HELLO {
            return Err(HelloFault::Malformed);
        }
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if length > HELLO_BYTES_MAX {
            return Err(HelloFault::TooLarge);
        }
        match body.len() {
            have if have < length => Ok(None),
            // Nothing can follow it in its record: the other side has to answer first.
            have if have > length => Err(HelloFault::Malformed),
            _ => ClientHello::read(body)
                .map(Some)
                .ok_or(HelloFault::Malformed),
        }
    }

    /// Waits for so many bytes behind those taken, if they may come.
    fn room_for(&self, bytes: usize) -> Result<Option<ClientHello>, HelloFault> {
        match self.taken + bytes > HELLO_BYTES_MAX {
            true => Err(HelloFault::TooLarge),
            false => Ok(None),
        }
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    /// What stands behind its length of one byte.
    fn short(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first()?;
        self.0 = rest;
        self.take(usize::from(*length))
    }

    /// What stands behind its length of two bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
