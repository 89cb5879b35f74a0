//! First messages as clients send them, cut, bent and hostile.

use proptest::prelude::*;

use super::*;

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length, bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &long(data)].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    let entry = [&[NAME_TYPE_HOST][..], &long(name)].concat();
    extension(EXTENSION_SERVER_NAME, &long(&entry))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    let name = |name: &&str| [&[name.len() as u8][..], name.as_bytes()].concat();
    let list: Vec<u8> = names.iter().flat_map(name).collect();
    extension(EXTENSION_ALPN, &long(&list))
}

/// The body of a message with these extensions.
fn body(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; RANDOM_BYTES]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(long(&extensions.concat()));
    body
}

fn message(body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[MESSAGE_CLIENT_HELLO, high, middle, low][..], body].concat()
}

/// In records that carry so many bytes each.
fn records(message: &[u8], each: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[CONTENT_HANDSHAKE, 3, 1][..], &long(piece)].concat();
    message.chunks(each).flat_map(record).collect()
}

fn look(bytes: &[u8]) -> Result<Option<ClientHello>, HelloFault> {
    HelloReader::default().look(bytes)
}

fn read(extensions: &[Vec<u8>]) -> Result<Option<ClientHello>, HelloFault> {
    look(&records(&message(&body(extensions)), 1 << 14))
}

#[test]
fn what_a_connection_asks_for_is_read() {
    let hello = read(&[
        extension(10, b"any"),
        sni(b"Shop.Example."),
        alpn(&["h2", "x"]),
    ]);
    let hello = hello.unwrap().unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("shop.example"));
    let offered = ["h2", "x", "", "h", "2x"].map(|name| hello.offers(name));
    assert_eq!(offered, [true, true, false, false, false]);
    for silent in [read(&[]), {
        let mut oldest = body(&[]);
        oldest.truncate(oldest.len() - 2);
        look(&records(&message(&oldest), 1 << 14))
    }] {
        assert_eq!(silent, Ok(Some(ClientHello::default())));
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let twice = [
        &[NAME_TYPE_HOST][..],
        &long(b"a"),
        &[NAME_TYPE_HOST],
        &long(b"b"),
    ]
    .concat();
    let other_kind = [&[1][..], &long(b"a")].concat();
    let server_names = |list: &[u8]| extension(EXTENSION_SERVER_NAME, list);
    for extensions in [
        vec![sni(b"a"), sni(b"b")],
        vec![sni(b"a"), sni(b"a")],
        vec![alpn(&["a"]), alpn(&["b"])],
        vec![server_names(&long(&twice))],
        vec![server_names(&long(&other_kind))],
        vec![server_names(&long(b""))],
        vec![server_names(b"")],
        vec![server_names(
            &[long(&[&[0][..], &long(b"a")].concat()), vec![0]].concat(),
        )],
        vec![sni(b"")],
        vec![sni(b".")],
        vec![sni(b"a b")],
        vec![sni(b"a\0b")],
        vec![sni("ä".as_bytes())],
        vec![sni(&[b'a'; 255])],
        vec![alpn(&[])],
        vec![alpn(&[""])],
        vec![extension(EXTENSION_ALPN, &long(&[5, b'h', b'2']))],
    ] {
        assert_eq!(
            read(&extensions),
            Err(HelloFault::Malformed),
            "{extensions:?}"
        );
    }
    let whole = body(&[sni(b"a")]);
    let behind = [&whole[..], &[0]].concat();
    let mut odd_ciphers = whole.clone();
    odd_ciphers[2 + RANDOM_BYTES + 2] = 3;
    let mut other_version = whole.clone();
    other_version[0] = 2;
    for body in [&behind, &odd_ciphers, &other_version] {
        let bytes = records(&message(body), 1 << 14);
        assert_eq!(look(&bytes), Err(HelloFault::Malformed));
    }
    // Another message, one that is followed by something, and another record in the midst.
    let mut finished = message(&whole);
    finished[0] = 20;
    let followed = [message(&whole), vec![11]].concat();
    let mut alerted = records(&message(&whole), 20);
    alerted[25] = 21;
    let empty = [CONTENT_HANDSHAKE, 3, 1, 0, 0];
    let long = [CONTENT_HANDSHAKE, 3, 1, 0x40, 1];
    for bytes in [
        &records(&finished, 1 << 14)[..],
        &records(&followed, 1 << 14),
        &alerted,
        &empty,
        &long,
    ] {
        assert_eq!(look(bytes), Err(HelloFault::Malformed), "{bytes:?}");
    }
}

#[test]
fn what_is_no_tls_is_known_at_once() {
    for bytes in [
        &b"G"[..],
        b"\x80\x2e\x01",
        b"\x16\x02",
        b"\x15\x03\x01",
        b"\0",
    ] {
        assert_eq!(look(bytes), Err(HelloFault::NotTls), "{bytes:?}");
    }
    for bytes in [&b""[..], b"\x16", b"\x16\x03"] {
        assert_eq!(look(bytes), Ok(None), "{bytes:?}");
    }
}

#[test]
fn a_message_without_end_is_refused_before_it_arrived() {
    let mut endless = message(&body(&[]));
    endless[1] = 1;
    assert_eq!(look(&records(&endless, 1 << 14)), Err(HelloFault::TooLarge));
    // Small as it is, in so many records that it takes too long.
    let slow = records(&message(&body(&[extension(9, &[0; 4000])])), 1);
    assert_eq!(look(&slow), Err(HelloFault::TooLarge));
    let mut reader = HelloReader::default();
    let first = slow
        .iter()
        .enumerate()
        .find_map(|(at, _)| reader.look(&slow[..at]).err().map(|fault| (at, fault)));
    let (at, fault) = first.unwrap();
    assert!(
        at <= HELLO_BYTES_MAX && fault == HelloFault::TooLarge,
        "{at} {fault}"
    );
    // As large as it may be, it is read.
    let room = HELLO_BYTES_MAX - 2 * RECORD_HEADER_BYTES - MESSAGE_HEADER_BYTES;
    let rest = room - body(&[extension(9, &[])]).len();
    let largest = body(&[extension(9, &vec![0; rest])]);
    let bytes = records(&message(&largest), 1 << 13);
    assert_eq!(bytes.len(), HELLO_BYTES_MAX);
    assert!(look(&bytes).unwrap().is_some());
}

proptest! {
    #[test]
    fn it_is_read_however_it_is_cut(
        each in 1_usize..100,
        name in "[a-z]{1,20}(\\.[a-z]{1,10}){0,3}",
        tail in proptest::collection::vec(any::<u8>(), 0..30),
    ) {
        let hello = message(&body(&[alpn(&["h2"]), sni(name.as_bytes())]));
        let bytes = records(&hello, each);
        let mut reader = HelloReader::default();
        for length in 0..bytes.len() {
            prop_assert_eq!(reader.look(&bytes[..length]), Ok(None));
        }
        let told = reader.look(&[bytes, tail].concat()).unwrap().unwrap();
        prop_assert_eq!(told.server_name.as_deref(), Some(&*name));
        prop_assert!(told.offers("h2"));
    }

    #[test]
    fn any_bytes_are_survived_and_never_waited_for_without_end(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 0..100),
        begins in any::<bool>(),
    ) {
        let mut bytes = match begins {
            true => records(&message(&body(&[sni(b"a.example"), alpn(&["h2", "x"])])), 50),
            false => vec![CONTENT_HANDSHAKE, 3, 1, 0, 90],
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes.extend(noise);
        let mut reader = HelloReader::default();
        let mut last = Ok(None);
        for length in 0..=bytes.len() {
            last = reader.look(&bytes[..length]);
            if last != Ok(None) {
                break;
            }
        }
        if last == Ok(None) {
            bytes.resize(HELLO_BYTES_MAX + RECORD_HEADER_BYTES, 0);
            prop_assert_ne!(reader.look(&bytes), Ok(None));
        }
    }
}
