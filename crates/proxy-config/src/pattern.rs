//! Regular expressions and path templates, as config writes them.
//!
//! Owns their limits, and what is known of every path that one takes: the literal segments that it
//! begins with. Never takes more time than a multiple of the length of what it is asked about.

use std::fmt;
use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind};

use crate::words::{PathText, WordFault, text_form};

/// The longest regular expression.
const PATTERN_BYTES_MAX: usize = 1024;
/// The most memory of a compiled expression, and of what it remembers while it is used.
pub(crate) const PATTERN_SIZE_MAX: usize = 256 * 1024;
/// The most variables of a template. The index may have to follow two ways at each.
const VARIABLES_MAX: usize = 8;

/// A regular expression that must match a whole value, in RE2's syntax: no look-around and no
/// back-references, and so linear time. `\d`, `\w`, `\s` and `.` mean ASCII and bytes.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Box<str>,
    whole: Regex,
    /// Segments that begin every path which matches, such as `/users`; `None` where none is sure.
    head: Option<Box<str>>,
}

impl Pattern {
    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all of `value` matches.
    pub fn matches(&self, value: &str) -> bool {
        self.whole.is_match(value.as_bytes())
    }

    /// The expression for a whole value, to be put into a set.
    pub(crate) fn whole(&self) -> &str {
        self.whole.as_str()
    }

    /// The path to which all that match are below: whole segments, without a slash at the end.
    pub(crate) fn head(&self) -> Option<&str> {
        self.head.as_deref()
    }
}

/// Compiles an expression within the limits; the fault says what is wrong with it.
pub(crate) fn compile(text: &str) -> Result<Regex, WordFault> {
    if text.len() > PATTERN_BYTES_MAX {
        let fault =
            format!("the regular expression is longer than {PATTERN_BYTES_MAX} bytes; shorten it");
        return Err(WordFault::new(fault));
    }
    built(text).map_err(|error| {
        WordFault::new(match error {
            regex::Error::CompiledTooBig(_) => format!(
                "{text:?} needs more than {} KiB once it is compiled; use smaller repetitions",
                PATTERN_SIZE_MAX / 1024
            ),
            error => format!(
                "{text:?} is not a regular expression: {}; correct it (RE2's syntax)",
                last_line(&error.to_string())
            ),
        })
    })
}

fn built(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(PATTERN_SIZE_MAX)
        .dfa_size_limit(PATTERN_SIZE_MAX)
        .build()
}

/// The fault of a syntax error, which comes with a drawing of its place.
fn last_line(text: &str) -> &str {
    let line = text.lines().last().unwrap_or(text);
    line.strip_prefix("error: ").unwrap_or(line)
}

impl FromStr for Pattern {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        // By itself first: `a)|(b` is none, whatever is put around it.
        compile(text)?;
        let whole = built(&format!(r"\A(?:{text})\z")).map_err(|_| {
            WordFault::new(format!(
                "{text:?} cannot stand for a whole value; remove a comment at its end, or make it \
                 smaller"
            ))
        })?;
        Ok(Self {
            text: text.into(),
            whole,
            head: head(text),
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

text_form!(
    Pattern,
    "A regular expression in RE2's syntax that must match the whole value.",
    "^.{1,1024}$"
);

/// See [`Pattern::head`].
fn head(text: &str) -> Option<Box<str>> {
    let parsed = ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(text);
    let mut literal = Vec::new();
    literal_start(&parsed.ok()?, &mut literal);
    let literal = String::from_utf8(literal).ok()?;
    let end = literal.rfind('/')?;
    literal.starts_with('/').then(|| literal[..end].into())
}

/// Collects the bytes that everything which matches begins with; whether that is all of it.
fn literal_start(hir: &Hir, out: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            out.extend_from_slice(&literal.0);
            true
        }
        HirKind::Capture(capture) => literal_start(&capture.sub, out),
        HirKind::Concat(parts) => parts.iter().all(|part| literal_start(part, out)),
        _ => false,
    }
}

/// A path with variables: `/users/{id}/files/{*rest}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// One segment of a [`PathTemplate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This one.
    Literal(Box<str>),
    /// `{id}`: any that is not empty.
    One,
    /// `{*rest}`: all that is left, if anything is.
    Rest,
}

impl PathTemplate {
    /// Whether `path` has this form.
    pub fn matches(&self, path: &str) -> bool {
        let mut left = path.strip_prefix('/');
        for wanted in &self.segments {
            let Some(rest) = left else { return false };
            let (segment, after) = split_segment(rest);
            let fits = match wanted {
                Segment::Literal(literal) => **literal == *segment,
                Segment::One => !segment.is_empty(),
                Segment::Rest => return !rest.is_empty(),
            };
            if !fits {
                return false;
            }
            left = after;
        }
        left.is_none()
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The names of its variables, each with the number of its segment.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (usize, &str)> {
        let parts = self.text.split('/').skip(1).enumerate();
        parts.filter_map(|(index, part)| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some((index, name.strip_prefix('*').unwrap_or(name)))
        })
    }

    /// Whether both take the same paths: the names of variables do not matter.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.segments == other.segments
    }

    /// The literal segments before the first variable, and a slash: all paths begin with it.
    pub(crate) fn head(&self) -> &str {
        &self.text[..self.text.find('{').unwrap_or(self.text.len())]
    }

    /// A path of this form.
    pub(crate) fn example(&self) -> String {
        let segment = |segment: &Segment| match segment {
            Segment::Literal(literal) => format!("/{literal}"),
            Segment::One | Segment::Rest => "/x".to_owned(),
        };
        self.segments.iter().map(segment).collect()
    }
}

/// The first segment of what follows a slash, and what follows the next one.
pub(crate) fn split_segment(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((segment, after)) => (segment, Some(after)),
        None => (rest, None),
    }
}

impl FromStr for PathTemplate {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        let fault = |what: &str| WordFault::new(format!("{text:?} is not a path template: {what}"));
        let mut names: Vec<&str> = Vec::new();
        let mut segments = Vec::new();
        let parts = text.strip_prefix('/').map(|rest| rest.split('/'));
        let parts = parts.ok_or_else(|| {
            fault("it does not begin with `/`; write it as /users/{id} or /files/{*rest}")
        })?;
        for part in parts {
            if segments.last() == Some(&Segment::Rest) {
                return Err(fault("something follows a `{*rest}`; put that last"));
            }
            let Some(inner) = part.strip_prefix('{').and_then(|it| it.strip_suffix('}')) else {
                if part.contains(['{', '}']) {
                    return Err(fault(
                        "a variable is a whole segment; write `{name}` between slashes, or use \
                         `path_regex`",
                    ));
                }
                segments.push(Segment::Literal(part.into()));
                continue;
            };
            let (name, segment) = match inner.strip_prefix('*') {
                Some(name) => (name, Segment::Rest),
                None => (inner, Segment::One),
            };
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(fault("a variable has no name; use letters, digits and `_`"));
            }
            if names.contains(&name) {
                return Err(fault("two variables have one name; give each its own"));
            }
            names.push(name);
            segments.push(segment);
        }
        if names.is_empty() {
            return Err(fault("it has no variable; use `path` instead"));
        }
        if names.len() > VARIABLES_MAX {
            return Err(fault(&format!(
                "it has more than {VARIABLES_MAX} variables; use fewer"
            )));
        }
        let template = Self {
            text: text.into(),
            segments: segments.into(),
        };
        template.example().parse::<PathText>()?;
        Ok(template)
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_form!(
    PathTemplate,
    "A path with variables: `{name}` is one segment, `{*name}` at the end is all that follows.",
    "^/.*\\{.+\\}"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn fault<T: FromStr<Err = WordFault>>(text: &str) -> String {
        match text.parse::<T>() {
            Ok(_) => panic!("{text:?} is accepted"),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn an_expression_must_match_the_whole_value() {
        let pattern: Pattern = "/a|/b[0-9]+".parse().unwrap();
        for (value, holds) in [
            ("/a", true),
            ("/b12", true),
            ("/ab", false),
            ("/x/a", false),
        ] {
            assert_eq!(pattern.matches(value), holds, "{value}");
        }
        // Not before a line break at the end either.
        assert!(!pattern.matches("/a\n"));
    }

    #[test]
    fn expressions_that_are_none_or_too_large_are_refused() {
        for (bad, part) in [
            (
                "a)|(b",
                "is not a regular expression: unopened group; correct it",
            ),
            ("(a", "unclosed group"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)", "look-around"),
            (r"\p{Greek}", "Unicode not allowed here"),
            (
                "(?x)a # b",
                "cannot stand for a whole value; remove a comment",
            ),
            (
                "((a{1000}){1000}){1000}",
                "needs more than 256 KiB once it is compiled",
            ),
            ("[a-z]{100000}", "needs more than 256 KiB"),
            (&"a".repeat(1025), "longer than 1024 bytes"),
        ] {
            let fault = fault::<Pattern>(bad);
            assert!(fault.contains(part) && !fault.contains('\n'), "{fault}");
        }
    }

    #[test]
    fn the_sure_start_of_an_expression_is_known() {
        for (text, head) in [
            ("/users/[0-9]+", Some("/users")),
            ("/users/a.*", Some("/users")),
            (r"/a/b\.c/(x|y)", Some("/a/b.c")),
            ("(/a/)(b|c)", Some("/a")),
            ("/.*", Some("")),
            ("^/a/b$", Some("/a")),
            ("(/a/|b)c", None),
            ("(?i)/a/b", Some("")),
            (".*/a", None),
            ("a/b", None),
            ("/a/?b", Some("")),
        ] {
            assert_eq!(text.parse::<Pattern>().unwrap().head(), head, "{text}");
        }
    }

    #[test]
    fn templates_take_whole_segments() {
        let template: PathTemplate = "/users/{id}/files/{*rest}".parse().unwrap();
        for (path, holds) in [
            ("/users/7/files/a", true),
            ("/users/7/files/a/b/", true),
            ("/users/7/files/", false),
            ("/users/7/files", false),
            ("/users//files/a", false),
            ("/users/7/x/a", false),
            ("/users/7", false),
            ("*", false),
        ] {
            assert_eq!(template.matches(path), holds, "{path}");
        }
        let one: PathTemplate = "/{id}".parse().unwrap();
        assert!(one.matches("/a") && !one.matches("/") && !one.matches("/a/"));
    }

    #[test]
    fn templates_that_could_mean_something_else_are_refused() {
        for (bad, part) in [
            ("users/{id}", "does not begin with `/`"),
            ("/users", "it has no variable; use `path`"),
            ("/{*rest}/x", "something follows"),
            ("/{id}.json", "a variable is a whole segment"),
            ("/{}", "has no name"),
            ("/{a}/{a}", "two variables have one name"),
            ("/a//{b}", "never matches"),
            ("/a/../{b}", "never matches"),
            (
                "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}",
                "more than 8 variables",
            ),
        ] {
            let fault = fault::<PathTemplate>(bad);
            assert!(fault.contains(part), "{bad}: {fault}");
        }
    }
}
