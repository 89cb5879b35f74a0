//! What a route asks of a request.
//!
//! Owns the meaning of `match`: the reference by which the index in `table` is tested. Never
//! decides between two routes.

use std::fmt;

use super::RequestView;

/// The conditions of one route; all must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Which paths.
    pub path: PathCondition,
    /// Which methods, in capitals; empty: all.
    pub methods: Box<[Box<str>]>,
    /// Which headers.
    pub headers: Box<[HeaderCondition]>,
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
}

/// A condition on one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// The name, in lower case.
    pub name: Box<str>,
    /// The value, to the letter. `None`: any value, but the header must be there.
    pub exact: Option<Box<str>>,
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
        match self
            .headers
            .iter()
            .find(|header| !header.holds((request.header)(&header.name).as_deref()))
        {
            Some(header) => Err(Mismatch::Header(header)),
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
        let implied = |mine: &HeaderCondition| {
            other.headers.iter().any(|theirs| {
                theirs.name == mine.name && (mine.exact.is_none() || theirs.exact == mine.exact)
            })
        };
        self.path.covers(&other.path) && methods && self.headers.iter().all(implied)
    }

    /// Whether the path decides alone.
    pub(super) fn is_path_only(&self) -> bool {
        self.methods.is_empty() && self.headers.is_empty()
    }
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
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (Self::Exact(mine), Self::Exact(theirs)) => mine == theirs,
            (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(_), Self::Exact(path) | Self::Prefix(path)) => self.matches(path),
        }
    }
}

impl HeaderCondition {
    fn holds(&self, value: Option<&str>) -> bool {
        match (&self.exact, value) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(exact), Some(value)) => **exact == *value,
        }
    }
}

impl fmt::Display for PathCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any path"),
            Self::Prefix(prefix) => write!(f, "path_prefix {prefix}"),
            Self::Exact(path) => write!(f, "path {path}"),
        }
    }
}

impl fmt::Display for HeaderCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exact {
            Some(exact) => write!(f, "header {}: {exact}", self.name),
            None => write!(f, "header {} present", self.name),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)?;
        if !self.methods.is_empty() {
            write!(f, ", method {}", self.methods.join("|"))?;
        }
        self.headers
            .iter()
            .try_for_each(|header| write!(f, ", {header}"))
    }
}

impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "the path is not {path}"),
            Self::Method(methods) => write!(f, "the method is not {}", methods.join(" or ")),
            Self::Header(header) => match &header.exact {
                Some(exact) => write!(f, "header {} is not {exact}", header.name),
                None => write!(f, "header {} is missing", header.name),
            },
        }
    }
}
