//! Conditions on values: of headers and of query parameters.
//!
//! Owns what a value must be, and how a query is read for that. Never changes what is forwarded.

use std::borrow::Cow;
use std::fmt;

use crate::pattern::Pattern;

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueCondition {
    /// Anything, but it must be there.
    Present,
    /// This, to the letter.
    Exact(Box<str>),
    /// It begins so.
    Prefix(Box<str>),
    /// It ends so.
    Suffix(Box<str>),
    /// It has this somewhere.
    Contains(Box<str>),
    /// All of it matches.
    Regex(Pattern),
}

/// A condition on one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// The name, in lower case.
    pub name: Box<str>,
    /// The value.
    pub value: ValueCondition,
    /// The value must be another. A header that is missing has no value, and so fulfils no condition
    /// but that it is missing (as in Envoy).
    pub invert: bool,
}

/// A condition on one query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryCondition {
    /// The name, decoded.
    pub name: Box<str>,
    /// The value, decoded.
    pub value: ValueCondition,
}

impl ValueCondition {
    /// Whether a value that is there fulfils it.
    pub(super) fn holds(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Contains(part) => value.contains(&**part),
            Self::Regex(pattern) => pattern.matches(value),
        }
    }

    /// Whether every value that fulfils `other` fulfils this.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, _) => true,
            (_, Self::Exact(value)) => self.holds(value),
            _ => self == other,
        }
    }

    /// The only value that fulfils it.
    pub(super) fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(exact) => Some(exact),
            _ => None,
        }
    }
}

impl HeaderCondition {
    /// Whether a header with this value, or without any, fulfils it.
    pub fn holds(&self, value: Option<&str>) -> bool {
        match (value, &self.value) {
            (None, ValueCondition::Present) => self.invert,
            (None, _) => false,
            (Some(value), condition) => condition.holds(value) != self.invert,
        }
    }

    /// Whether every request that fulfils `other` fulfils this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self.name != other.name {
            return false;
        }
        let theirs_is_there = other.value != ValueCondition::Present || !other.invert;
        match (self.invert, other.invert) {
            (false, false) => self.value.covers(&other.value),
            _ if self == other => true,
            (false, true) => self.value == ValueCondition::Present && theirs_is_there,
            (true, _) => other.exact().is_some_and(|value| self.holds(Some(value))),
        }
    }

    /// The only value that fulfils it.
    pub(super) fn exact(&self) -> Option<&str> {
        self.value.exact().filter(|_| !self.invert)
    }
}

impl QueryCondition {
    pub(super) fn holds(&self, query: &str) -> bool {
        query_value(query, &self.name).is_some_and(|value| self.value.holds(&value))
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        self.name == other.name && self.value.covers(&other.value)
    }
}

/// The first value of a parameter, decoded; empty where it has no `=`.
pub(super) fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (known, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!pair.is_empty() && decoded(known) == name).then(|| decoded(value))
    })
}

/// A text without percent-encoding and with `+` as a space, as forms write it. A `%` without two
/// digits stays.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digit = |at: usize| {
            behind
                .get(at)
                .and_then(|byte| char::from(*byte).to_digit(16))
        };
        rest = behind;
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                rest = &behind[2..];
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(*byte),
        }
    }
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// A parameter that is read as this name and value.
pub(super) fn encoded(name: &str, value: &str) -> String {
    let hex = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    format!("{}={}", hex(name), hex(value))
}

impl fmt::Display for ValueCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str(" present"),
            Self::Exact(value) => write!(f, ": {value}"),
            Self::Prefix(value) => write!(f, " prefix {value}"),
            Self::Suffix(value) => write!(f, " suffix {value}"),
            Self::Contains(value) => write!(f, " contains {value}"),
            Self::Regex(pattern) => write!(f, " regex {pattern}"),
        }
    }
}

impl ValueCondition {
    /// What a value is not, for people.
    fn missed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("is missing"),
            Self::Exact(value) => write!(f, "is not {value}"),
            Self::Prefix(value) => write!(f, "does not begin with {value}"),
            Self::Suffix(value) => write!(f, "does not end with {value}"),
            Self::Contains(value) => write!(f, "does not contain {value}"),
            Self::Regex(pattern) => write!(f, "does not match {pattern}"),
        }
    }
}

impl fmt::Display for HeaderCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.invert { "not " } else { "" };
        write!(f, "{not}header {}{}", self.name, self.value)
    }
}

impl fmt::Display for QueryCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query {}{}", self.name, self.value)
    }
}

impl HeaderCondition {
    pub(super) fn missed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.invert, &self.value) {
            (false, value) => {
                write!(f, "header {} ", self.name)?;
                value.missed(f)
            }
            (true, ValueCondition::Present) => write!(f, "header {} is there", self.name),
            (true, value) => write!(
                f,
                "header {0} is missing, or has what it must not have ({0}{value})",
                self.name
            ),
        }
    }
}

impl QueryCondition {
    pub(super) fn missed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query parameter {} ", self.name)?;
        self.value.missed(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_the_first_value_counts() {
        let query = "a=1&b=%7Bx%7d&a=2&c&&%64=+x%2&=e&f=%ff";
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("{x}")),
            ("c", Some("")),
            ("d", Some(" x%2")),
            ("f", Some("\u{fffd}")),
            ("", Some("e")),
            ("A", None),
        ] {
            assert_eq!(query_value(query, name).as_deref(), value, "{name}");
        }
        assert_eq!(query_value("", ""), None);
        let odd = encoded("a &=", "%+é");
        assert_eq!(query_value(&odd, "a &=").as_deref(), Some("%+é"));
    }

    #[test]
    fn a_missing_header_fulfils_only_that_it_is_missing() {
        let header = |value, invert| HeaderCondition {
            name: "x".into(),
            value,
            invert,
        };
        let blue = || ValueCondition::Exact("blue".into());
        for (condition, missing, is_blue, red) in [
            (header(ValueCondition::Present, false), false, true, true),
            (header(ValueCondition::Present, true), true, false, false),
            (header(blue(), false), false, true, false),
            (header(blue(), true), false, false, true),
            (
                header(ValueCondition::Prefix("bl".into()), false),
                false,
                true,
                false,
            ),
            (
                header(ValueCondition::Suffix("ed".into()), false),
                false,
                false,
                true,
            ),
            (
                header(ValueCondition::Contains("lu".into()), true),
                false,
                false,
                true,
            ),
            (
                header(ValueCondition::Regex("r.d".parse().unwrap()), false),
                false,
                false,
                true,
            ),
        ] {
            let found = [None, Some("blue"), Some("red")].map(|value| condition.holds(value));
            assert_eq!(found, [missing, is_blue, red], "{condition}");
        }
    }
}
