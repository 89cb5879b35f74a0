//! Two sessions with nothing between them but bytes.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::{Calling, CallingTerms, ListenerTerms, Listening, Named, Version};

/// A listener, and a way to call it.
fn pair(folder: &Path) -> (Listening, Calling) {
    let parameters = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    std::fs::write(folder.join("a.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("a.key"), key.serialize_pem()).unwrap();
    let certificate = Named::new("certificate", folder.join("a.crt"));
    let listening = Listening::load(ListenerTerms {
        certificates: vec![(certificate.clone(), Named::new("key", folder.join("a.key")))],
        names_only: false,
        clients: None,
        minimum: Version::V13,
        alpn: vec!["h2".into(), "http/1.1".into()],
    });
    let calling = Calling::load(CallingTerms {
        ca: Some(certificate),
        names: Vec::new(),
        own: None,
        minimum: Version::V12,
        alpn: vec!["http/1.1".into()],
    });
    (listening.unwrap(), calling.unwrap())
}

/// All records that wait at `from`, given to `to` in pieces of this size; what `to` makes of them.
fn carry(from: &mut Session, to: &mut Session, piece: usize) -> Result<Vec<u8>, Breach> {
    let mut records = Vec::new();
    while from.has_records() {
        from.write_records(&mut records).unwrap();
    }
    let mut plain = Vec::new();
    for piece in records.chunks(piece) {
        to.open(piece, |said| plain.extend_from_slice(said))?;
    }
    Ok(plain)
}

/// Two ends after their handshake.
fn open(piece: usize) -> (Session, Session) {
    let folder = tempfile::tempdir().unwrap();
    let (listening, calling) = pair(folder.path());
    let mut server = listening.session().unwrap();
    let address = [127, 0, 0, 1].into();
    let mut client = calling.session(Some("a.example"), address).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        carry(&mut client, &mut server, piece).unwrap();
        carry(&mut server, &mut client, piece).unwrap();
    }
    (server, client)
}

#[test]
fn records_may_come_in_any_pieces() {
    let text: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    for piece in [1, 7, 4096, 1 << 20] {
        let (mut server, mut client) = open(piece);
        assert_eq!(server.alpn(), Some(&b"http/1.1"[..]));
        client.seal_all(&[IoSlice::new(&text[..10]), IoSlice::new(&text[10..])]);
        assert!(carry(&mut client, &mut server, piece).unwrap() == text);
        server.seal_all(&[IoSlice::new(&text)]);
        assert!(carry(&mut server, &mut client, piece).unwrap() == text);
        assert!(!client.was_ended());
        server.end();
        assert!(carry(&mut server, &mut client, piece).unwrap().is_empty());
        assert!(client.was_ended() && !server.was_ended());
        // The other direction goes on.
        client.seal_all(&[IoSlice::new(b"still here")]);
        assert_eq!(
            carry(&mut client, &mut server, piece).unwrap(),
            b"still here"
        );
    }
}

#[test]
fn a_changed_bit_is_a_breach_and_the_other_end_is_told() {
    let (mut server, mut client) = open(1 << 20);
    client.seal_all(&[IoSlice::new(b"secret")]);
    let mut records = Vec::new();
    client.write_records(&mut records).unwrap();
    *records.last_mut().unwrap() ^= 1;
    let breach = server.open(&records, |_| panic!("nothing may come of it"));
    assert_eq!(breach.unwrap_err().class(), BreachClass::Protocol);
    let told = carry(&mut server, &mut client, 1 << 20).unwrap_err();
    assert_eq!(told.class(), BreachClass::Alert);
}

#[test]
fn nothing_private_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (listening, calling) = pair(folder.path());
    let key = std::fs::read_to_string(folder.path().join("a.key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    let shown = format!(
        "{listening:?} {calling:?} {:?}",
        listening.session().unwrap()
    );
    assert!(shown.contains("a.key") && !shown.contains(line), "{shown}");
}
