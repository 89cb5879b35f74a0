//! Paths that are made of others: by a regular expression, or from the variables of a template.
//!
//! Owns how large and how dear that may become, and that what comes out is a path in its one form.
//! Never sees a query.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use regex::bytes::Regex;

use crate::path::{EscapedSlashes, normalize_path};
use crate::pattern::{PathTemplate, Segment, compile, split_segment};
use crate::words::{WordFault, text_form};

/// A path that comes out longer is refused.
const PATH_BYTES_MAX: usize = 16 * 1024;
/// So many places of a path are replaced at most. Each may cost a look at all of it.
const PLACES_MAX: usize = 32;
/// The longest substitution.
const SUBSTITUTION_BYTES_MAX: usize = 1024;

/// Why no path comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RewriteFault {
    /// More bytes than a target may have.
    #[error("the rewritten path would be longer than 16 KiB")]
    TooLong,
    /// The expression matches in too many places.
    #[error("the expression matches in more than 32 places")]
    TooMany,
    /// What comes out is no path.
    #[error("what comes out is no path")]
    NoPath,
}

/// A regular expression that may match anywhere in a value, in RE2's syntax.
#[derive(Debug, Clone)]
pub struct SearchPattern {
    text: Box<str>,
    regex: Regex,
}

impl FromStr for SearchPattern {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        Ok(Self {
            text: text.into(),
            regex: compile(text)?,
        })
    }
}

impl fmt::Display for SearchPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for SearchPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SearchPattern {}

text_form!(
    SearchPattern,
    "A regular expression in RE2's syntax that may match anywhere; `^` and `$` are the ends.",
    "^.{1,1024}$"
);

/// What stands for each place where an expression matches (Envoy's `regex_rewrite`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitution {
    pattern: SearchPattern,
    parts: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// What this group of the expression matched; 0: all of it.
    Group(usize),
}

impl Substitution {
    /// Reads `text`, in which `\1` stands for the first group, `\0` for all that matched, and `\\`
    /// for a backslash.
    pub(crate) fn new(pattern: &SearchPattern, text: &str) -> Result<Self, String> {
        if text.len() > SUBSTITUTION_BYTES_MAX {
            return Err(format!(
                "it is longer than {SUBSTITUTION_BYTES_MAX} bytes; shorten it"
            ));
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            if character != '\\' {
                if !character.is_ascii_graphic() || matches!(character, '?' | '#') {
                    return Err(format!(
                        "{character:?} cannot stand in a path; leave it out, or escape it as %20"
                    ));
                }
                plain.push(character);
                continue;
            }
            let group = rest.next().and_then(|digit| digit.to_digit(10));
            let group = group.ok_or("a `\\` without a digit; write \\1 for the first group")?;
            let group = group as usize;
            let groups = pattern.regex.captures_len();
            if group >= groups {
                return Err(format!(
                    "there is no group {group} in the expression; it has {}",
                    groups - 1
                ));
            }
            if !plain.is_empty() {
                parts.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Piece::Group(group));
        }
        if !plain.is_empty() {
            parts.push(Piece::Text(plain.into()));
        }
        Ok(Self {
            pattern: pattern.clone(),
            parts: parts.into(),
        })
    }

    /// The path with every place replaced.
    pub(crate) fn apply<'a>(&self, path: &'a str) -> Result<Cow<'a, str>, RewriteFault> {
        let mut made = Vec::new();
        let mut end = 0;
        for (place, found) in self
            .pattern
            .regex
            .captures_iter(path.as_bytes())
            .enumerate()
        {
            if place == PLACES_MAX {
                return Err(RewriteFault::TooMany);
            }
            let whole = found.get(0).ok_or(RewriteFault::NoPath)?.range();
            made.extend_from_slice(&path.as_bytes()[end..whole.start]);
            end = whole.end;
            for part in &self.parts {
                match part {
                    Piece::Text(text) => made.extend_from_slice(text.as_bytes()),
                    Piece::Group(group) => {
                        let group = found.get(*group);
                        made.extend_from_slice(group.map_or(b"", |group| group.as_bytes()));
                    }
                }
            }
            if made.len() > PATH_BYTES_MAX {
                return Err(RewriteFault::TooLong);
            }
        }
        if end == 0 && made.is_empty() {
            return Ok(Cow::Borrowed(path));
        }
        made.extend_from_slice(&path.as_bytes()[end..]);
        let made = String::from_utf8(made).map_err(|_| RewriteFault::NoPath)?;
        in_one_form(made).map(Cow::Owned)
    }
}

/// A path made of the variables of the route's template, as it is written: `/v2/{id}/{rest}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateText {
    text: Box<str>,
    /// The text before, and the name after it; the last name is empty.
    parts: Box<[(Box<str>, Box<str>)]>,
}

impl FromStr for TemplateText {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let fault = |what: &str| WordFault::new(format!("{text:?} is not a path to make: {what}"));
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind
                .split_once('}')
                .ok_or_else(|| fault("a `{` is never closed; write it as /v2/{id}"))?;
            // As in the template that is matched, `{*rest}` may be written for `{rest}`.
            let name = name.strip_prefix('*').unwrap_or(name);
            if name.is_empty() {
                return Err(fault("a variable has no name; write it as /v2/{id}"));
            }
            parts.push((before.into(), name.into()));
            rest = after;
        }
        parts.push((rest.into(), "".into()));
        let plain: String = parts
            .iter()
            .map(|(text, _): &(Box<str>, _)| &**text)
            .collect();
        let odd = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#' | b'\\' | b'}');
        if !text.starts_with('/') || plain.bytes().any(odd) || text.len() > SUBSTITUTION_BYTES_MAX {
            return Err(fault("it is no path; write it as /v2/{id}"));
        }
        Ok(Self {
            text: text.into(),
            parts: parts.into(),
        })
    }
}

impl fmt::Display for TemplateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_form!(
    TemplateText,
    "A path in which `{name}` stands for what the route's `path_template` has there.",
    "^/[^?#]*$"
);

/// A [`TemplateText`] with the places of its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateChange {
    parts: Box<[(Box<str>, Option<Place>)]>,
}

/// Where a path has what a variable stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The number of the segment, from 0.
    segment: usize,
    /// All from there on.
    rest: bool,
}

impl TemplateChange {
    /// The change for paths of the form `from`; the name that `from` does not have, if there is one.
    pub(crate) fn new<'a>(text: &'a TemplateText, from: &PathTemplate) -> Result<Self, &'a str> {
        let place = |(text, name): &'a (Box<str>, Box<str>)| {
            if name.is_empty() {
                return Ok((text.clone(), None));
            }
            let mut names = from.variables();
            let (segment, _) = names.find(|(_, known)| *known == &**name).ok_or(&**name)?;
            let rest = from.segments()[segment] == Segment::Rest;
            Ok((text.clone(), Some(Place { segment, rest })))
        };
        let parts: Result<_, &str> = text.parts.iter().map(place).collect();
        Ok(Self { parts: parts? })
    }

    /// The path that it makes of one of the right form.
    pub(crate) fn apply(&self, path: &str) -> Result<String, RewriteFault> {
        let mut made = String::new();
        for (text, place) in &self.parts {
            made.push_str(text);
            if let Some(place) = place {
                made.push_str(place.of(path));
            }
            if made.len() > PATH_BYTES_MAX {
                return Err(RewriteFault::TooLong);
            }
        }
        in_one_form(made)
    }
}

impl Place {
    fn of(self, path: &str) -> &str {
        let mut left = path.strip_prefix('/');
        for _ in 0..self.segment {
            left = left.and_then(|rest| split_segment(rest).1);
        }
        let left = left.unwrap_or_default();
        if self.rest {
            left
        } else {
            split_segment(left).0
        }
    }
}

fn in_one_form(made: String) -> Result<String, RewriteFault> {
    if made.len() > PATH_BYTES_MAX {
        return Err(RewriteFault::TooLong);
    }
    // `%2F` is there only where Defaults keep it.
    let path = normalize_path(&made, EscapedSlashes::Keep).map_err(|_| RewriteFault::NoPath)?;
    Ok(match path {
        Cow::Borrowed(_) => made,
        Cow::Owned(path) => path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substituted(pattern: &str, text: &str, path: &str) -> Result<String, RewriteFault> {
        let pattern = pattern.parse().unwrap();
        let substitution = Substitution::new(&pattern, text).unwrap();
        substitution.apply(path).map(Cow::into_owned)
    }

    #[test]
    fn every_place_is_replaced_and_the_rest_stays() {
        for (pattern, text, path, made) in [
            // Envoy's own examples.
            (
                "^/service/([^/]+)(/.*)$",
                r"\2/instance/\1",
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            (
                "^(.*?)one(.*)$",
                r"\1two\2",
                "/xxx/one/yyy/one/zzz",
                "/xxx/two/yyy/one/zzz",
            ),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("x", "y", "/a", "/a"),
            (r"/(b)?c", r"/\1-\0", "/c", "/-/c"),
            ("^/old", "", "/old/a", "/a"),
            ("^", "/pre", "/a", "/pre/a"),
            // What comes out is in the one form.
            ("b", "../c", "/a/b", "/c"),
            ("b", "%2f%41", "/a/b", "/a/%2FA"),
        ] {
            let found = substituted(pattern, text, path);
            assert_eq!(found.as_deref(), Ok(made), "{pattern} {text} {path}");
        }
    }

    #[test]
    fn what_grows_too_large_or_is_no_path_is_told() {
        let long = format!("/{}", "a".repeat(8000));
        for (pattern, text, path, fault) in [
            ("^(.*)$", r"\1\1\1", &*long, RewriteFault::TooLong),
            ("a", "b", &*long, RewriteFault::TooMany),
            ("^/a", "a", "/a", RewriteFault::NoPath),
            ("^.*$", "", "/a", RewriteFault::NoPath),
            ("a", "../..", "/a", RewriteFault::NoPath),
            ("a", "%zz", "/a", RewriteFault::NoPath),
        ] {
            let found = substituted(pattern, text, path);
            assert_eq!(found, Err(fault), "{pattern} {text}");
        }
    }

    #[test]
    fn a_substitution_names_groups_that_are_there() {
        let pattern = "(a)(b)".parse().unwrap();
        for (bad, part) in [
            (r"\3", "there is no group 3 in the expression; it has 2"),
            (r"a\", "a `\\` without a digit"),
            (r"\x", "a `\\` without a digit"),
            ("a b", "' ' cannot stand in a path"),
            ("/a?b", "'?' cannot stand in a path"),
            ("a\r\nb", "cannot stand in a path"),
            (&"a".repeat(1025), "longer than 1024 bytes"),
        ] {
            let fault = Substitution::new(&pattern, bad).unwrap_err();
            assert!(fault.contains(part), "{bad}: {fault}");
        }
    }

    #[test]
    fn variables_of_a_template_go_where_they_are_named() {
        let from: PathTemplate = "/users/{id}/files/{*rest}".parse().unwrap();
        for (text, made) in [
            ("/f/{rest}", "/f/a/b.c/"),
            ("/{*rest}", "/a/b.c/"),
            ("/{id}/{id}", "/7/7"),
            ("/u-{id}.json", "/u-7.json"),
            ("/plain", "/plain"),
        ] {
            let text: TemplateText = text.parse().unwrap();
            let change = TemplateChange::new(&text, &from).unwrap();
            let found = change.apply("/users/7/files/a/b.c/");
            assert_eq!(found.as_deref(), Ok(made), "{text}");
        }
        let odd: TemplateText = "/{id}/{name}".parse().unwrap();
        assert_eq!(TemplateChange::new(&odd, &from), Err("name"));
        for bad in ["a", "/{", "/{}", "/{*}", "/a?{id}", "/}", "/a b"] {
            assert!(bad.parse::<TemplateText>().is_err(), "{bad}");
        }
    }
}
