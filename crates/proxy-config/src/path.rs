//! The one form of a path, in which it is matched and forwarded (RFC 3986, 6.2.2).
//!
//! Owns what two spellings have in common, so that no spelling passes by a route. Never sees a
//! query.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do with `%2F` and `%5C`: slashes for some upstreams, none for others, and so a way past
/// a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EscapedSlashes {
    /// Answer 400. The default, for it is the only one that cannot be used to slip by.
    #[default]
    Refuse,
    /// Leave them: no segment ends there. For upstreams that do not decode them either.
    Keep,
    /// Take them as slashes, for matching and forwarding alike.
    Decode,
}

/// Why a path is refused (a 400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It does not begin with `/`.
    #[error("it does not begin with `/`")]
    NotAbsolute,
    /// A control character, white space, `?`, `#`, a backslash or a byte outside of ASCII, or
    /// `%00`.
    #[error("it has a character that a path cannot have")]
    BadCharacter,
    /// A `%` without two hexadecimal digits.
    #[error("it has a `%` without two hexadecimal digits")]
    BadEscape,
    /// `%2F` or `%5C` under [`EscapedSlashes::Refuse`].
    #[error("it has an escaped slash")]
    EscapedSlash,
    /// More `..` than segments before them.
    #[error("its `..` lead out of the root")]
    OutOfRoot,
}

/// `path` in the form that is matched and forwarded: escapes of unreserved characters decoded,
/// other escapes in capitals, `//` merged, `.` and `..` resolved. A path already in that form, the
/// common case, is borrowed.
///
/// ```
/// use proxy_config::{EscapedSlashes, normalize_path};
/// let normal = |path| normalize_path(path, EscapedSlashes::Refuse);
/// assert_eq!(normal("/a/./b//%7euser/../c").unwrap(), "/a/b/c");
/// assert!(normal("/a%2Fb").is_err());
/// ```
pub fn normalize_path(path: &str, escaped: EscapedSlashes) -> Result<Cow<'_, str>, PathFault> {
    if !path.starts_with('/') {
        return Err(PathFault::NotAbsolute);
    }
    let mut previous = 0;
    let mut is_normal = true;
    for byte in path.bytes() {
        if !is_path_byte(byte) {
            return Err(PathFault::BadCharacter);
        }
        is_normal &= byte != b'%' && (previous != b'/' || (byte != b'/' && byte != b'.'));
        previous = byte;
    }
    if is_normal {
        return Ok(Cow::Borrowed(path));
    }
    let normal = merge_segments(&unescape(path, escaped)?)?;
    Ok(if normal == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(normal)
    })
}

/// What may stand in a path as it is. Wider than RFC 3986 by characters that browsers leave as they
/// are and that no upstream takes for a delimiter.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"?#\\".contains(&byte)
}

fn unescape(path: &str, escaped: EscapedSlashes) -> Result<String, PathFault> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('%') {
        out.push_str(before);
        let digits = behind.get(..2).ok_or(PathFault::BadEscape)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PathFault::BadEscape);
        }
        rest = &behind[2..];
        let byte = u8::from_str_radix(digits, 16).map_err(|_| PathFault::BadEscape)?;
        match (byte, escaped) {
            (0, _) => return Err(PathFault::BadCharacter),
            (b'/' | b'\\', EscapedSlashes::Refuse) => return Err(PathFault::EscapedSlash),
            (b'/' | b'\\', EscapedSlashes::Decode) => out.push('/'),
            (b'-' | b'.' | b'_' | b'~', _) => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Resolves `.` and `..` (RFC 3986, 5.2.4) and drops empty segments but the last.
fn merge_segments(path: &str) -> Result<String, PathFault> {
    let mut out = String::with_capacity(path.len());
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                let parent = out.rfind('/').ok_or(PathFault::OutOfRoot)?;
                out.truncate(parent);
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if ends_open {
        out.push('/');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_path_become_one() {
        for (given, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61%7e", "/a~"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a/", "/a/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a%20b", "/a%20b"),
            ("/a;x=1/..;/b", "/a;x=1/..;/b"),
        ] {
            assert_eq!(
                normalize_path(given, EscapedSlashes::Refuse).as_deref(),
                Ok(expected),
                "{given}"
            );
        }
    }

    #[test]
    fn what_is_normal_already_is_borrowed() {
        for path in ["/", "/a/b.c/d", "/.well-known/x", "/a%20b"] {
            let normal = normalize_path(path, EscapedSlashes::Refuse);
            assert!(matches!(normal, Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (given, fault) in [
            ("", PathFault::NotAbsolute),
            ("*", PathFault::NotAbsolute),
            ("a/b", PathFault::NotAbsolute),
            ("/a\0", PathFault::BadCharacter),
            ("/%00", PathFault::BadCharacter),
            ("/a b", PathFault::BadCharacter),
            ("/a\\b", PathFault::BadCharacter),
            ("/a#b", PathFault::BadCharacter),
            ("/a?b", PathFault::BadCharacter),
            ("/é", PathFault::BadCharacter),
            ("/%", PathFault::BadEscape),
            ("/%4", PathFault::BadEscape),
            ("/%zz", PathFault::BadEscape),
            ("/%+4", PathFault::BadEscape),
            ("/..", PathFault::OutOfRoot),
            ("/a/../../b", PathFault::OutOfRoot),
            ("/a/%2e%2e/%2e%2e/b", PathFault::OutOfRoot),
            ("/a%2fb", PathFault::EscapedSlash),
            ("/a%5Cb", PathFault::EscapedSlash),
        ] {
            assert_eq!(
                normalize_path(given, EscapedSlashes::Refuse),
                Err(fault),
                "{given}"
            );
        }
    }

    #[test]
    fn escaped_slashes_follow_the_policy() {
        let keep = normalize_path("/a%2fb%5c", EscapedSlashes::Keep);
        assert_eq!(keep.as_deref(), Ok("/a%2Fb%5C"));
        let decode = normalize_path("/public%2f..%2Fadmin", EscapedSlashes::Decode);
        assert_eq!(decode.as_deref(), Ok("/admin"));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in "/[a-c./%2eEfF5C]{0,24}") {
            for escaped in [EscapedSlashes::Refuse, EscapedSlashes::Keep, EscapedSlashes::Decode] {
                if let Ok(once) = normalize_path(&path, escaped) {
                    let twice = normalize_path(&once, escaped);
                    prop_assert_eq!(twice.as_deref(), Ok(&*once));
                    prop_assert!(!once.contains("//") && !once.contains("/../"));
                }
            }
        }
    }
}
