//! The bytes of a connection up to and with its first request.
//!
//! Owns where the first request's head lies (RFC 9113, 4.1 and 6.2) and where in it the authority
//! (RFC 7541, 6). Whatever is not as expected is passed on as it came: HTTP/2 judges it.

use tokio::io::ReadBuf;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
/// The largest frame that is held until it is whole: what a client may send unasked. A larger one
/// is passed on.
const FRAME_BYTES_MAX: usize = 16 * 1024;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The place of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// The longest name of an HTTP/1.1 method that is waited for to end.
const METHOD_BYTES_MAX: usize = 16;

/// What a port speaks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// gRPC.
    #[default]
    Http2,
    /// gRPC, and JSON.
    Http1Or2,
}

/// What has arrived and was not passed on yet.
#[derive(Debug, Default)]
pub(super) struct Opening {
    speaks: Speaks,
    bytes: Vec<u8>,
    /// So many of them may be passed on.
    done: usize,
    phase: Phase,
    /// It does not begin as what the port speaks.
    foreign: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Preface,
    /// The first frame, which must be of settings (RFC 9113, 3.4).
    Settings,
    Frames,
    /// Nothing more is looked at.
    Over,
}

impl Opening {
    pub(super) fn new(speaks: Speaks) -> Self {
        Self {
            speaks,
            ..Self::default()
        }
    }

    /// Bytes that arrived; none means that no more will.
    pub(super) fn take(&mut self, arrived: &[u8]) {
        self.bytes.extend_from_slice(arrived);
        if arrived.is_empty() {
            // Who connects and leaves without a byte only looks whether somebody is here.
            self.foreign |= self.phase == Phase::Preface && !self.bytes.is_empty();
            self.phase = Phase::Over;
        }
        while self.look() {}
        if self.phase == Phase::Over {
            self.done = self.bytes.len();
        }
    }

    /// Passes on what it may; false if there is nothing yet and more must arrive.
    pub(super) fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let count = self.done.min(buffer.remaining());
        buffer.put_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        self.done -= count;
        count > 0 || self.is_over() || buffer.remaining() == 0
    }

    /// Whether this is another protocol than the port speaks.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whether all was passed on, and nothing more is to be looked at.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.bytes.is_empty()
    }

    fn give_up_on_stranger(&mut self) {
        self.foreign = true;
        self.phase = Phase::Over;
    }

    /// Looks at the next part, if it is whole.
    fn look(&mut self) -> bool {
        let rest = &mut self.bytes[self.done..];
        let whole = match self.phase {
            Phase::Over => return false,
            Phase::Preface if PREFACE.starts_with(rest) && rest.len() < PREFACE.len() => {
                return false;
            }
            Phase::Preface if !rest.starts_with(PREFACE) => {
                match self.speaks {
                    Speaks::Http2 => self.give_up_on_stranger(),
                    Speaks::Http1Or2 => match begins_http1(rest) {
                        Some(true) => self.phase = Phase::Over,
                        Some(false) => self.give_up_on_stranger(),
                        None => {}
                    },
                }
                return false;
            }
            Phase::Preface => {
                self.phase = Phase::Settings;
                PREFACE.len()
            }
            Phase::Settings | Phase::Frames => {
                let Some((head, payload)) = rest.split_first_chunk_mut::<FRAME_HEAD_BYTES>() else {
                    return false;
                };
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let (kind, flags) = (head[3], head[4]);
                if self.phase == Phase::Settings && kind != SETTINGS {
                    self.give_up_on_stranger();
                    return false;
                }
                self.phase = Phase::Frames;
                if length > FRAME_BYTES_MAX {
                    self.phase = Phase::Over;
                    return false;
                }
                let Some(payload) = payload.get_mut(..length) else {
                    return false;
                };
                if kind == HEADERS {
                    // `None`: it ends too early, which is for HTTP/2 to say.
                    let _ = mend(payload, flags);
                    self.phase = Phase::Over;
                }
                FRAME_HEAD_BYTES + length
            }
        };
        self.done += whole;
        true
    }
}

/// Whether a request of HTTP/1.1 begins so; `None` while that cannot be told.
fn begins_http1(bytes: &[u8]) -> Option<bool> {
    let capital = |byte: &&u8| byte.is_ascii_uppercase();
    let length = bytes.iter().take_while(capital).count();
    match bytes.get(length) {
        None if length <= METHOD_BYTES_MAX => None,
        // `PRI` is reserved for those who speak HTTP/2, and these do not.
        Some(b' ') => Some(length > 0 && &bytes[..length] != b"PRI"),
        _ => Some(false),
    }
}

/// Mends the authority in the payload of a HEADERS frame.
fn mend(payload: &mut [u8], flags: u8) -> Option<()> {
    let mut at = 0;
    if flags & PADDED != 0 {
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    loop {
        let first = *payload.get(at)?;
        let name = match first {
            // A field that the table has whole.
            0x80.. => {
                integer(payload, &mut at, 7)?;
                continue;
            }
            0x40.. => integer(payload, &mut at, 6)?,
            // A new size of the table.
            0x20.. => {
                integer(payload, &mut at, 5)?;
                continue;
            }
            _ => integer(payload, &mut at, 4)?,
        };
        if name == 0 {
            skip_string(payload, &mut at)?;
        }
        if name == AUTHORITY {
            let is_huffman = *payload.get(at)? & 0x80 != 0;
            let value = skip_string(payload, &mut at)?;
            mend_value(payload.get_mut(value)?, is_huffman);
            return Some(());
        }
        skip_string(payload, &mut at)?;
    }
}

/// Makes a host name of `http://`. In HPACK's Huffman code `x` is as long as `:`, and `-` as `/`.
fn mend_value(value: &mut [u8], is_huffman: bool) {
    let (from, to): (&[u8], &[u8]) = if is_huffman {
        (
            &[0x9d, 0x29, 0xae, 0xe3, 0x0c],
            &[0x9d, 0x29, 0xaf, 0xca, 0xcb],
        )
    } else {
        (b"http://", b"httpx--")
    };
    // Of the code of the second `/` one bit is left over, a zero, as in that of `-`.
    let is_url =
        value.starts_with(from) && (!is_huffman || value.get(5).is_some_and(|b| b >> 7 == 0));
    if is_url {
        value[..to.len()].copy_from_slice(to);
    }
}

/// Passes over a string; where its bytes are.
fn skip_string(payload: &[u8], at: &mut usize) -> Option<std::ops::Range<usize>> {
    let length = integer(payload, at, 7)?;
    let bytes = *at..at.checked_add(length)?;
    *at = bytes.end;
    Some(bytes)
}

/// An integer that begins in the low `bits` of a byte (RFC 7541, 5.1).
fn integer(payload: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let low = (1_usize << bits) - 1;
    let mut value = usize::from(*payload.get(*at)?) & low;
    *at += 1;
    if value < low {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *payload.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    // Longer than any frame that is held.
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `http://127.0.0.1:1` and `httpx--127.0.0.1:1`, Huffman-coded (RFC 7541, appendix B).
    const CODED: &[u8] = &[
        0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x07,
    ];
    const MENDED: &[u8] = &[
        0x9d, 0x29, 0xaf, 0xca, 0xcb, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x07,
    ];

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&head, payload].concat()
    }

    /// A request as grpc-go writes it: method and scheme by index, then path and authority.
    fn headers(huffman: bool, authority: &[u8]) -> Vec<u8> {
        let flag = if huffman { 0x80 } else { 0 };
        let length = u8::try_from(authority.len()).unwrap() | flag;
        [
            &[0x83, 0x86, 0x44, 2, b'/', b'x', 0x41, length],
            authority,
            &[0x88],
        ]
        .concat()
    }

    fn opened(request: &[u8]) -> Vec<u8> {
        [PREFACE, &frame(4, 0, &[]), &frame(8, 0, &[0; 4]), request].concat()
    }

    /// What comes out when bytes go in by pieces of this size.
    fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
        let (mut opening, mut all) = (Opening::default(), Vec::new());
        for piece in bytes.chunks(piece).chain([&[][..]]) {
            opening.take(piece);
            let mut space = [0; 7];
            loop {
                let mut buffer = ReadBuf::new(&mut space);
                opening.give(&mut buffer);
                if buffer.filled().is_empty() {
                    break;
                }
                all.extend_from_slice(buffer.filled());
            }
        }
        assert!(opening.is_over());
        all
    }

    #[test]
    fn a_url_as_authority_becomes_a_host_however_it_is_cut() {
        let later = frame(1, 4, &headers(false, b"http://later:1"));
        let cases = [
            (true, CODED, MENDED),
            (false, &b"http://a:1"[..], &b"httpx--a:1"[..]),
            (false, b"a:1", b"a:1"),
            (false, b"http:/", b"http:/"),
        ];
        for (huffman, sent, seen) in cases {
            let whole = |authority| opened(&frame(1, 4, &headers(huffman, authority)));
            let sent = [whole(sent), later.clone()].concat();
            let seen = [whole(seen), later.clone()].concat();
            for piece in [1, 5, 64, 4096] {
                assert_eq!(through(&sent, piece), seen, "by {piece}");
            }
        }
    }

    #[test]
    fn padding_and_priority_are_passed_over() {
        let with = |authority: &[u8]| {
            let head = headers(false, authority);
            let payload = [&[2, 0, 0, 0, 0, 9], &head[..], &[0, 0]].concat();
            opened(&frame(1, 4 | PADDED | PRIORITY, &payload))
        };
        assert_eq!(through(&with(b"http://a:1"), 16), with(b"httpx--a:1"));
    }

    #[test]
    fn what_waits_for_the_server_is_passed_on_before_the_first_request() {
        let mut opening = Opening::default();
        let greeting = opened(&[]);
        opening.take(&greeting);
        let mut space = [0; 256];
        let mut buffer = ReadBuf::new(&mut space);
        assert!(opening.give(&mut buffer));
        assert_eq!(buffer.filled(), greeting);
        assert!(!opening.give(&mut buffer), "more must arrive");
    }

    #[test]
    fn strangers_are_told_from_whoever_speaks_http2() {
        let hasty = [PREFACE, &frame(HEADERS, 4, &headers(false, b"a:1"))].concat();
        let cases: [(&[u8], bool); 9] = [
            (b"", false),
            (PREFACE, false),
            (&opened(&[]), false),
            (&opened(&frame(HEADERS, 4, &headers(false, b"a:1"))), false),
            // HTTP/2 began; what is wrong later is for HTTP/2 to say.
            (&opened(&[0xff; 30]), false),
            (b"PR", true),
            (b"GET / HTTP/1.1\r\n\r\n", true),
            (&[PREFACE, &[0xff; 30]].concat(), true),
            (&hasty, true),
        ];
        for (bytes, foreign) in cases {
            for piece in [1, 4096] {
                let mut opening = Opening::default();
                for piece in bytes.chunks(piece).chain([&[][..]]) {
                    if opening.phase != Phase::Over {
                        opening.take(piece);
                    }
                }
                assert_eq!(opening.is_foreign(), foreign, "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn where_json_is_spoken_http1_is_no_stranger() {
        let cases: [(&[u8], bool); 8] = [
            (b"", false),
            (PREFACE, false),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"POST /v3/kv/put HTTP/1.1\r\n", false),
            (b"GE", true),
            (b" GET / HTTP/1.1\r\n\r\n", true),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", true),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", true),
        ];
        for (bytes, foreign) in cases {
            for piece in [1, 4096] {
                let mut opening = Opening::new(Speaks::Http1Or2);
                let mut all = Vec::new();
                for piece in bytes.chunks(piece).chain([&[][..]]) {
                    opening.take(piece);
                    let mut space = [0; 64];
                    let mut buffer = ReadBuf::new(&mut space);
                    opening.give(&mut buffer);
                    all.extend_from_slice(buffer.filled());
                }
                assert_eq!(opening.is_foreign(), foreign, "{bytes:?} by {piece}");
                assert_eq!(all, bytes, "by {piece}");
            }
        }
    }

    #[test]
    fn garbage_goes_through_as_it_is() {
        let garbage: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nXX",
            &opened(&frame(1, 4, &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff])),
            &opened(&frame(1, PADDED | PRIORITY, &[])),
            &opened(&[0xff; 30]),
            &opened(&[0, 0, 9, 1]),
        ];
        for bytes in garbage {
            for piece in [1, 4096] {
                assert_eq!(through(bytes, piece), bytes);
            }
        }
    }
}
