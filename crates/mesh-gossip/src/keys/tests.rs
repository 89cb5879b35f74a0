//! Key files, good and bad.

use super::*;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER: &str = "7Z6wVY2o2tWkEn9x-0_bSGDmHB1bh2rZ7rB8T8GQ1jw";

#[test]
fn hexadecimal_and_base64_are_the_same_key() {
    let hex = KeyRing::parse(HEX).unwrap();
    let base64 = KeyRing::parse(BASE64).unwrap();
    assert_eq!(hex.sealing().id, base64.sealing().id);
    assert_ne!(hex.sealing().id, KeyRing::development().sealing().id);
}

#[test]
fn the_first_key_seals_and_every_key_is_found() {
    let text = format!("# rotated in May\n\n  {OTHER}  # new\n{HEX}\n");
    let ring = KeyRing::parse(&text).unwrap();
    let old = KeyRing::parse(HEX).unwrap();
    assert_eq!(
        ring.sealing().id,
        KeyRing::parse(OTHER).unwrap().sealing().id
    );
    assert!(ring.find(old.sealing().id).is_some());
    assert!(old.find(ring.sealing().id).is_none());
}

#[test]
fn faults_name_the_line_and_never_the_key() {
    let parse = |text: &str| KeyRing::parse(text).err();
    assert_eq!(parse(""), Some(KeyFault::Empty));
    assert_eq!(parse("# nothing\n"), Some(KeyFault::Empty));
    assert_eq!(
        parse(&format!("{HEX}\n{BASE64}")),
        Some(KeyFault::Repeated(2))
    );
    for bad in [
        "secret",
        &HEX[1..],
        &HEX[2..],
        &BASE64[4..],
        "é",
        "====",
        &format!("{BASE64}="),
    ] {
        assert_eq!(parse(&format!("\n{bad}")), Some(KeyFault::Line(2)), "{bad}");
    }
    // The last digit carries bits beyond the 32nd byte.
    assert_eq!(parse(&BASE64.replace("8=", "9=")), Some(KeyFault::Line(1)));
    let many: String = (0..=KEYS_MAX).map(|n| format!("{n:064x}\n")).collect();
    assert_eq!(parse(&many), Some(KeyFault::TooMany));
}

#[test]
fn a_file_is_read_and_its_faults_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gossip.key");
    let absent = KeyRing::load(&path).unwrap_err();
    assert!(matches!(absent, KeyError::Read { .. }));
    assert!(absent.to_string().contains("gossip.key"), "{absent}");

    std::fs::write(&path, format!("{BASE64}\n")).unwrap();
    assert!(!KeyRing::load(&path).unwrap().has_development_key());

    std::fs::write(&path, "x".repeat(70_000)).unwrap();
    let long = KeyRing::load(&path).unwrap_err();
    assert!(
        matches!(
            long,
            KeyError::Fault {
                fault: KeyFault::TooLong,
                ..
            }
        ),
        "{long}"
    );
}

#[test]
fn the_published_key_is_recognized_however_it_is_given() {
    assert!(KeyRing::development().has_development_key());
    let hex: String = DEVELOPMENT_KEY
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(KeyRing::parse(&hex).unwrap().has_development_key());
    assert!(
        KeyRing::parse(&format!("{BASE64}\n{hex}"))
            .unwrap()
            .has_development_key()
    );
}

#[test]
fn debug_output_has_ids_only() {
    let shown = format!("{:?}", KeyRing::parse(HEX).unwrap());
    assert!(shown.len() < 60, "{shown}");
}
