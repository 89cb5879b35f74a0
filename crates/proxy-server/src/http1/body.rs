//! Bodies: finds the data in what arrived, for every framing, and frames data as chunks.
//!
//! Owns the chunk grammar (RFC 9112, 7.1), strict: CR LF only, hex digits only. Never copies data:
//! a step tells how many bytes at the front of the buffer are data.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::framing::Framing;
use super::trailers::{TRAILER_BYTES_MAX, parse_trailers};

/// A chunk's size line with its extensions may have so many bytes.
const SIZE_LINE_BYTES_MAX: usize = 4096;
/// All extensions of one body together, so that tiny chunks cannot hide a flood of them.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// More hex digits do not fit 60 bits, and no body is that large.
const SIZE_DIGITS_MAX: usize = 15;

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    /// The chunk grammar is broken.
    #[error("{0}")]
    Malformed(&'static str),
    /// The connection ended before the body did.
    #[error("the body ended early")]
    Truncated,
}

/// What the front of the buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// So many bytes of data (at least 1). Use them, then [`BodyDecoder::consume`] them.
    Data(usize),
    /// Nothing yet: read more.
    More,
    /// The body is over.
    End,
}

/// Where in a body the decoder is.
#[derive(Debug)]
enum Position {
    Sized(u64),
    UntilClose,
    Chunk(ChunkPosition),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkPosition {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

/// Finds the data of one body.
#[derive(Debug)]
pub(crate) struct BodyDecoder {
    position: Position,
    extension_bytes: usize,
    trailers: Option<HeaderMap>,
}

impl BodyDecoder {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            position: match framing {
                Framing::Empty => Position::End,
                Framing::Length(length) => Position::Sized(length),
                Framing::Chunked => Position::Chunk(ChunkPosition::Size),
                Framing::UntilClose => Position::UntilClose,
            },
            extension_bytes: 0,
            trailers: None,
        }
    }

    /// Whether the body is over.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self.position, Position::End)
    }

    /// Looks at the front of `buffer`, and takes away what is framing.
    pub(crate) fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, BodyFault> {
        loop {
            let available = buffer.len() as u64;
            return Ok(match &mut self.position {
                Position::End => Step::End,
                _ if available == 0 => Step::More,
                Position::Sized(left) => Step::Data(available.min(*left) as usize),
                Position::UntilClose => Step::Data(buffer.len()),
                Position::Chunk(ChunkPosition::Data(left)) => {
                    Step::Data(available.min(*left) as usize)
                }
                Position::Chunk(position) => {
                    let position = *position;
                    if self.framing(position, buffer)? {
                        continue;
                    }
                    Step::More
                }
            });
        }
    }

    /// Takes `count` bytes of data, at most as many as the last step told, off `buffer`.
    pub(crate) fn consume(&mut self, buffer: &mut BytesMut, count: usize) {
        buffer.advance(count);
        self.passed(count);
    }

    /// [`BodyDecoder::consume`] for those who keep the data.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut, count: usize) -> Bytes {
        self.passed(count);
        buffer.split_to(count).freeze()
    }

    fn passed(&mut self, count: usize) {
        match &mut self.position {
            Position::Sized(left) => {
                *left -= count as u64;
                if *left == 0 {
                    self.position = Position::End;
                }
            }
            Position::Chunk(ChunkPosition::Data(left)) => {
                *left -= count as u64;
                if *left == 0 {
                    self.position = Position::Chunk(ChunkPosition::DataEnd);
                }
            }
            Position::UntilClose | Position::Chunk(_) | Position::End => {}
        }
    }

    /// The connection ended: fine only where that ends the body.
    pub(crate) fn at_eof(&mut self) -> Result<(), BodyFault> {
        match self.position {
            Position::UntilClose => {
                self.position = Position::End;
                Ok(())
            }
            Position::End => Ok(()),
            Position::Sized(_) | Position::Chunk(_) => Err(BodyFault::Truncated),
        }
    }

    /// The trailers of a chunked body that is over, once.
    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Reads a piece of chunk framing; false when it has not arrived whole.
    fn framing(
        &mut self,
        position: ChunkPosition,
        buffer: &mut BytesMut,
    ) -> Result<bool, BodyFault> {
        let next = match position {
            ChunkPosition::Size => match self.size_line(buffer)? {
                None => return Ok(false),
                Some(0) => ChunkPosition::Trailers,
                Some(size) => ChunkPosition::Data(size),
            },
            ChunkPosition::DataEnd => {
                if !b"\r\n".starts_with(&buffer[..buffer.len().min(2)]) {
                    return Err(BodyFault::Malformed("a chunk is longer than its size"));
                }
                if buffer.len() < 2 {
                    return Ok(false);
                }
                buffer.advance(2);
                ChunkPosition::Size
            }
            ChunkPosition::Trailers => {
                let Some(trailers) = parse_trailers(buffer)? else {
                    return Ok(false);
                };
                self.trailers = trailers;
                self.position = Position::End;
                return Ok(true);
            }
            ChunkPosition::Data(_) => return Ok(true),
        };
        self.position = Position::Chunk(next);
        Ok(true)
    }

    fn size_line(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, BodyFault> {
        let Some(end) = memchr::memchr(b'\n', buffer) else {
            if buffer.len() > SIZE_LINE_BYTES_MAX {
                return Err(BodyFault::Malformed("a chunk size line is too long"));
            }
            return Ok(None);
        };
        let line = buffer[..end]
            .strip_suffix(b"\r")
            .ok_or(BodyFault::Malformed("a chunk size line is malformed"))?;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let extension = &line[digits..];
        let blank = extension.iter().take_while(|b| matches!(b, b' ' | b'\t'));
        let blank = blank.count();
        let well_formed = (1..=SIZE_DIGITS_MAX).contains(&digits)
            && line.len() <= SIZE_LINE_BYTES_MAX
            && (extension.is_empty() || extension.get(blank) == Some(&b';'))
            && !extension.contains(&b'\r');
        if !well_formed {
            return Err(BodyFault::Malformed("a chunk size line is malformed"));
        }
        self.extension_bytes += extension.len();
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(BodyFault::Malformed("chunk extensions are too long"));
        }
        let size = line[..digits].iter().fold(0_u64, |size, digit| {
            size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or_default())
        });
        buffer.advance(end + 1);
        Ok(Some(size))
    }
}

/// Writes the size line of a chunk of `size` bytes; after the data comes [`write_chunk_end`].
pub(crate) fn write_chunk_start(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = size;
    loop {
        at -= 1;
        digits[at] = DIGITS[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Writes what follows a chunk's data.
pub(crate) fn write_chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

const _: () = assert!(TRAILER_BYTES_MAX >= SIZE_LINE_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` given in pieces of `piece` bytes.
    fn decode(framing: Framing, input: &[u8], piece: usize) -> Result<(Vec<u8>, usize), BodyFault> {
        let mut decoder = BodyDecoder::new(framing);
        let mut buffer = BytesMut::new();
        let mut data = Vec::new();
        let mut pieces = input.chunks(piece);
        loop {
            match decoder.step(&mut buffer)? {
                Step::Data(count) => {
                    data.extend_from_slice(&buffer[..count]);
                    decoder.consume(&mut buffer, count);
                }
                Step::End => {
                    let rest = buffer.len() + pieces.map(<[u8]>::len).sum::<usize>();
                    return Ok((data, rest));
                }
                Step::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => decoder.at_eof()?,
                },
            }
        }
    }

    #[test]
    fn every_framing_is_read_however_it_is_cut() {
        let chunked = b"5\r\nhello\r\n06 ; a=b\r\n world\r\n0\r\nx-sum: 1\r\n\r\nnext";
        for piece in 1..=chunked.len() {
            let read = |framing, input: &[u8]| decode(framing, input, piece).unwrap();
            assert_eq!(
                read(Framing::Chunked, chunked),
                (b"hello world".to_vec(), 4)
            );
            assert_eq!(
                read(Framing::Length(5), b"hellonext"),
                (b"hello".to_vec(), 4)
            );
            assert_eq!(read(Framing::UntilClose, b"hello"), (b"hello".to_vec(), 0));
            assert_eq!(read(Framing::Empty, b"next"), (Vec::new(), 4));
        }
    }

    #[test]
    fn broken_chunks_are_refused_and_short_bodies_noticed() {
        for broken in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1;a\rb\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1000000000000000\r\n",
            b"0\r\nbad trailer\r\n\r\n",
            b"0\r\na: b\n\n",
        ] {
            for piece in [1, broken.len()] {
                let refused = decode(Framing::Chunked, broken, piece);
                let text = String::from_utf8_lossy(broken);
                assert!(matches!(refused, Err(BodyFault::Malformed(_))), "{text:?}");
            }
        }
        for (framing, short) in [
            (Framing::Length(5), &b"hell"[..]),
            (Framing::Chunked, b"5\r\nhell"),
            (Framing::Chunked, b"5\r\nhello\r\n0\r\n"),
        ] {
            assert_eq!(decode(framing, short, 1), Err(BodyFault::Truncated));
        }
    }

    #[test]
    fn floods_of_extensions_are_refused() {
        let line = format!("{};{}\r\n", 1, "e".repeat(SIZE_LINE_BYTES_MAX));
        assert!(decode(Framing::Chunked, line.as_bytes(), 64).is_err());
        let many = format!("1;{}\r\na\r\n", "e".repeat(1000)).repeat(17);
        assert!(decode(Framing::Chunked, many.as_bytes(), 64).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        for size in [1, 9, 10, 15, 16, 255, 4096, 70_000] {
            let mut out = Vec::new();
            write_chunk_start(&mut out, size);
            out.extend(vec![b'a'; size]);
            write_chunk_end(&mut out);
            out.extend_from_slice(b"0\r\n\r\n");
            let (data, rest) = decode(Framing::Chunked, &out, 1000).unwrap();
            assert_eq!((data.len(), rest), (size, 0));
        }
    }
}
