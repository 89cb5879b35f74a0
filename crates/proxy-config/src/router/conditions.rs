//! What a route asks of a request.
//!
//! Owns the meaning of `match`: the reference by which the index in `table` is tested. Never
//! decides between two routes.

use std::fmt;

use super::RequestView;
use super::value::{HeaderCondition, QueryCondition};
use crate::pattern::{PathTemplate, Pattern};

/// The conditions of one route; all must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Which paths.
    pub path: PathCondition,
    /// Which methods, in capitals; empty: all.
    pub methods: Box<[Box<str>]>,
    /// Which headers.
    pub headers: Box<[HeaderCondition]>,
    /// Which query parameters.
    pub query: Box<[QueryCondition]>,
    /// gRPC only: the content type says so.
    pub grpc: bool,
}

/// Which paths a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathCondition {
    /// All.
    #[default]
    Any,
    /// This path and everything below it, on whole segments: `/api` takes `/api`, `/api/` and
    /// `/api/x`, never `/apis`. A slash at the end of the prefix changes nothing.
    Prefix(Box<str>),
    /// This path alone, to the letter.
    Exact(Box<str>),
    /// Paths of this form.
    Template(PathTemplate),
    /// Paths all of which match this.
    Regex(Pattern),
}

/// The first condition that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch<'a> {
    /// The path.
    Path(&'a PathCondition),
    /// The method is none of these.
    Method(&'a [Box<str>]),
    /// This header is missing or has another value.
    Header(&'a HeaderCondition),
    /// This query parameter is missing or has another value.
    Query(&'a QueryCondition),
    /// It is no gRPC.
    Grpc,
}

impl Conditions {
    /// Whether all hold; else the first that does not.
    pub fn check(&self, request: &RequestView<'_>) -> Result<(), Mismatch<'_>> {
        if !self.path.matches(request.path) {
            return Err(Mismatch::Path(&self.path));
        }
        self.check_beyond_path(request)
    }

    /// As [`Conditions::check`], for a path that is known to match.
    pub(super) fn check_beyond_path(&self, request: &RequestView<'_>) -> Result<(), Mismatch<'_>> {
        if !self.methods.is_empty()
            && !self
                .methods
                .iter()
                .any(|method| **method == *request.method)
        {
            return Err(Mismatch::Method(&self.methods));
        }
        if self.grpc && !is_grpc(request) {
            return Err(Mismatch::Grpc);
        }
        let fails =
            |header: &&HeaderCondition| !header.holds((request.header)(&header.name).as_deref());
        if let Some(header) = self.headers.iter().find(fails) {
            return Err(Mismatch::Header(header));
        }
        match self.query.iter().find(|one| !one.holds(request.query)) {
            Some(query) => Err(Mismatch::Query(query)),
            None => Ok(()),
        }
    }

    /// Whether every request that `other` takes is taken by this too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let methods = self.methods.is_empty()
            || (!other.methods.is_empty()
                && other
                    .methods
                    .iter()
                    .all(|method| self.methods.contains(method)));
        let headers = self
            .headers
            .iter()
            .all(|mine| other.headers.iter().any(|theirs| mine.covers(theirs)));
        let query = self
            .query
            .iter()
            .all(|mine| other.query.iter().any(|theirs| mine.covers(theirs)));
        self.path.covers(&other.path) && methods && headers && query && (other.grpc || !self.grpc)
    }

    /// Whether the path decides alone.
    pub(super) fn is_path_only(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty() && self.query.is_empty() && !self.grpc
    }
}

/// By the content type, as Envoy: `application/grpc`, alone or with `+proto`, `;...`.
fn is_grpc(request: &RequestView<'_>) -> bool {
    (request.header)("content-type").is_some_and(|value| {
        let rest = value.strip_prefix("application/grpc");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
    })
}

impl PathCondition {
    /// Whether `path` is meant.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.trim_end_matches('/'))
                .is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && !path.is_empty())),
            Self::Template(template) => template.matches(path),
            Self::Regex(pattern) => pattern.matches(path),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (_, Self::Exact(path)) => self.matches(path),
            (Self::Prefix(_), Self::Prefix(path)) => self.matches(path),
            // Every path of theirs begins with these whole segments.
            (Self::Prefix(_), Self::Template(theirs)) => self.matches(theirs.head()),
            (Self::Prefix(_), Self::Regex(theirs)) => theirs
                .head()
                .is_some_and(|head| self.matches(&format!("{head}/"))),
            (Self::Template(mine), Self::Template(theirs)) => mine.is_as(theirs),
            (Self::Regex(mine), Self::Regex(theirs)) => mine == theirs,
            (Self::Exact(_) | Self::Template(_) | Self::Regex(_), _) => false,
        }
    }
}

impl fmt::Display for PathCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any path"),
            Self::Prefix(prefix) => write!(f, "path_prefix {prefix}"),
            Self::Exact(path) => write!(f, "path {path}"),
            Self::Template(template) => write!(f, "path_template {template}"),
            Self::Regex(pattern) => write!(f, "path_regex {pattern}"),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)?;
        if !self.methods.is_empty() {
            write!(f, ", method {}", self.methods.join("|"))?;
        }
        if self.grpc {
            f.write_str(", grpc")?;
        }
        self.headers
            .iter()
            .try_for_each(|header| write!(f, ", {header}"))?;
        self.query
            .iter()
            .try_for_each(|query| write!(f, ", {query}"))
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "the path is not {path}"),
            Self::Method(methods) => write!(f, "the method is not {}", methods.join(" or ")),
            Self::Header(header) => header.missed(f),
            Self::Query(query) => query.missed(f),
            Self::Grpc => f.write_str("the content type is not application/grpc"),
        }
    }
}
