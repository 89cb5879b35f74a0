//! The product's version, as far as nodes of two versions have to understand each other.
//!
//! Owns the rule who can be together: a version and the one minor version before it. Patch levels
//! never differ in what they write or read, so they are not told apart.

use std::fmt;
use std::str::FromStr;

/// `MAJOR.MINOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Moves when the version before cannot be read any more.
    pub major: u16,
    /// Moves with each release that writes something that the one before does not know.
    pub minor: u16,
}

/// The text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version; write it as 1.2 or 1.2.3")]
pub struct ParseVersionError(String);

impl Version {
    /// The first one: what is said of no version is its.
    pub const FIRST: Self = Self { major: 0, minor: 1 };
    /// That of this build.
    pub const THIS: Self = Self {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
    };

    /// The minor version before this one, if there is one.
    pub fn before(self) -> Option<Self> {
        let minor = self.minor.checked_sub(1)?;
        Some(Self { minor, ..self }).filter(|before| *before >= Self::FIRST)
    }

    /// Whether a node of this version can be in a mesh that agreed on `mesh`: it knows all that the
    /// mesh may write, and the nodes at `mesh` are at most one minor version behind it.
    pub fn fits(self, mesh: Self) -> bool {
        self == mesh || self.before() == Some(mesh)
    }
}

const fn number(text: &str) -> u16 {
    match u16::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo checks that a version is made of numbers"),
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ParseVersionError;

    /// Reads `1.2`; what follows a further point (`1.2.3-rc.1`) does not count.
    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let fault = || ParseVersionError(text.to_owned());
        let mut parts = text.splitn(3, '.');
        let mut next = || {
            let part = parts.next().ok_or_else(fault)?;
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits).ok_or_else(fault)
        };
        Ok(Self {
            major: next()?,
            minor: next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn a_version_is_read_with_or_without_its_patch_level() {
        assert_eq!(version("0.1"), Version::FIRST);
        assert_eq!(version("0.1.7-rc.1+x"), Version::FIRST);
        assert_eq!(version("12.34").to_string(), "12.34");
        for bad in [
            "", "1", "1.", ".1", "1.x", "+1.2", "1.-2", "70000.1", "v1.2",
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_neighbours_are_together() {
        assert!(version("0.2").fits(version("0.1")));
        assert!(version("0.2").fits(version("0.2")));
        assert!(
            !version("0.2").fits(version("0.3")),
            "it lacks what the mesh writes"
        );
        assert!(!version("0.3").fits(version("0.1")), "it skips one");
        assert!(!version("1.0").fits(version("0.9")));
        assert_eq!(version("1.0").before(), None);
        assert_eq!(Version::FIRST.before(), None);
    }

    #[test]
    fn this_build_is_the_packages_version() {
        assert_eq!(version(env!("CARGO_PKG_VERSION")), Version::THIS);
        assert!(Version::FIRST <= Version::THIS);
    }
}
