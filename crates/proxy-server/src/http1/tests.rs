//! Whatever arrives, and however it is cut, it is read in one way and never panics.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes_max: 512,
    line_ends: LineEnds::Strict,
};

/// What is left of an input after reading it: the data, the rest, or why it was refused.
type Read = Result<(Vec<u8>, Vec<u8>), BodyFault>;

/// A head and what is behind it, if it came whole.
type Taken = Result<Option<(Vec<u8>, Vec<u8>)>, HeadFault>;

/// Reads a body from pieces.
fn read_body(framing: Framing, pieces: &[&[u8]]) -> Read {
    let mut decoder = BodyDecoder::new(framing);
    let (mut buffer, mut data) = (BytesMut::new(), Vec::new());
    let mut pieces = pieces.iter();
    loop {
        match decoder.step(&mut buffer)? {
            Step::Data(count) => {
                assert!(count > 0, "a step without progress");
                data.extend_from_slice(&buffer[..count]);
                decoder.consume(&mut buffer, count);
            }
            Step::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => decoder.at_eof()?,
            },
            Step::End => {
                let rest = pieces.fold(buffer.to_vec(), |rest, piece| [&rest, *piece].concat());
                return Ok((data, rest));
            }
        }
    }
}

/// Takes a head from pieces; its bytes and what is behind them.
fn read_head(pieces: &[&[u8]]) -> Taken {
    let (mut buffer, mut scanned) = (BytesMut::new(), 0);
    let mut pieces = pieces.iter();
    loop {
        if let Some(head) = take_head(&mut buffer, &mut scanned, LIMITS)? {
            let rest = pieces.fold(buffer.to_vec(), |rest, piece| [&rest, *piece].concat());
            return Ok(Some((head.to_vec(), rest)));
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None => return Ok(None),
        }
    }
}

/// Bytes that are often nearly right.
fn nearly(alphabet: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(prop::sample::select(alphabet), 0..24);
    pieces.prop_map(|pieces| pieces.concat().into_bytes())
}

const CHUNKS: &[&str] = &[
    "0",
    "1",
    "3",
    "a",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "abc",
    "x",
    ";e=1",
    "0\r\n\r\n",
    "1\r\na\r\n",
    "x-sum: 1\r\n",
    " ",
];

const HEADS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "host: a\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "x: y",
    " ",
    ":",
    "\0",
    "transfer-encoding: chunked\r\n",
    "content-length: 3\r\n",
    "é",
];

fn cut(input: &[u8], at: usize) -> [&[u8]; 2] {
    let (first, second) = input.split_at(at.min(input.len()));
    [first, second]
}

proptest! {
    #[test]
    fn bodies_are_read_alike_however_they_are_cut(input in nearly(CHUNKS), at in 0_usize..64) {
        for framing in [Framing::Chunked, Framing::Length(7), Framing::UntilClose] {
            let whole = read_body(framing, &[&input]);
            prop_assert_eq!(&read_body(framing, &cut(&input, at)), &whole);
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            prop_assert_eq!(&read_body(framing, &bytes), &whole);
        }
    }

    #[test]
    fn heads_are_read_alike_however_they_are_cut(input in nearly(HEADS), at in 0_usize..64) {
        let whole = read_head(&[&input]);
        // An endless head may be refused for its size or for its line end, whichever comes first.
        let same = |other: Taken| other == whole || (other.is_err() && whole.is_err());
        prop_assert!(same(read_head(&cut(&input, at))));
        prop_assert!(same(read_head(&input.chunks(1).collect::<Vec<_>>())));
    }

    #[test]
    fn a_request_that_is_accepted_has_one_framing_and_one_meaning(input in nearly(HEADS)) {
        let mut buffer = BytesMut::from(&input[..]);
        let Ok(Some(bytes)) = take_head(&mut buffer, &mut 0, LIMITS) else { return Ok(()) };
        let mut head = RequestHead::default();
        if parse_request(&bytes, &mut head).is_err() {
            return Ok(());
        }
        let Ok(framing) = request_framing(&head) else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes);
        let lines = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        let (coded, sized) = (lines("transfer-encoding"), lines("content-length"));
        prop_assert!(coded + sized <= 1, "{text:?} was read as {framing:?}");
        prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']));
    }

    #[test]
    fn no_bytes_make_a_panic(input in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_body(Framing::Chunked, &[&input]);
        if let Ok(Some((head, _))) = read_head(&[&input]) {
            let _ = parse_request(&head.clone().into(), &mut RequestHead::default());
            let _ = parse_response(&head.into(), &mut ResponseHead::default());
        }
    }
}
