//! How keys and values, which are any bytes, are shown.
//!
//! Owns the two forms: escaped text for terminals, text and base64 for JSON. Never loses a byte.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// `bytes` in one line: printable text as it is, everything else as `\n`, `\t`, `\r`, `\\` or
/// `\xNN`. Different bytes never look the same.
pub(crate) fn line(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => shown.push_str("\\n"),
                '\t' => shown.push_str("\\t"),
                '\r' => shown.push_str("\\r"),
                '\\' => shown.push_str("\\\\"),
                control if control.is_control() => {
                    let mut utf8 = [0; 4];
                    push_hex(&mut shown, control.encode_utf8(&mut utf8).as_bytes());
                }
                printable => shown.push(printable),
            }
        }
        push_hex(&mut shown, chunk.invalid());
    }
    shown
}

/// `bytes` as a text of any number of lines when a terminal can take them so, else as [`line()`].
pub(crate) fn block(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text)
            if !text
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t') =>
        {
            text.to_owned()
        }
        _ => line(bytes),
    }
}

/// `bytes` as a JSON string: `None` when they are not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// `bytes` in base64 (standard alphabet, padded).
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn push_hex(shown: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(shown, "\\x{byte:02x}").expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_every_byte_and_no_control() {
        assert_eq!(line("grüße 1".as_bytes()), "grüße 1");
        assert_eq!(line(b"a\nb\tc\\d"), "a\\nb\\tc\\\\d");
        assert_eq!(line(b"\x1b[31m\xff\xfe!"), "\\x1b[31m\\xff\\xfe!");
        assert_eq!(line("\u{85}".as_bytes()), "\\xc2\\x85");
        assert_ne!(line(b"\\n"), line(b"\n"));
    }

    #[test]
    fn a_block_stays_as_it_is_unless_it_would_harm_the_terminal() {
        assert_eq!(block(b"two\nlines\\"), "two\nlines\\");
        assert_eq!(block(b"red: \x1b[31m\n"), "red: \\x1b[31m\\n");
        assert_eq!(block(b"\xff"), "\\xff");
    }

    #[test]
    fn json_has_text_only_where_there_is_text() {
        assert_eq!(text(b"ok"), Some("ok".into()));
        assert_eq!(text(b"\xff"), None);
        assert_eq!(base64(b"\xff\x00"), "/wA=");
    }
}
