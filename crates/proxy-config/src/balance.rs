//! How endpoints are chosen, and what a request is known by: as compiled.
//!
//! Owns the words and their shapes. Never chooses: that is `proxy-balance`.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Time;

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Weighted at random.
    Random,
    /// The less loaded of two drawn at random.
    #[default]
    LeastRequest,
    /// Of two drawn at random, the one that answers sooner: its recent time to the response head
    /// (a slow answer counts at once, and is forgotten in some 10s) times the requests in flight.
    PeakEwma,
    /// By the route's `hash`: consistent hashing on a ketama ring. Without a hash: at random.
    RingHash,
    /// By the route's `hash`: a Maglev table of 65537 slots. Quicker and more even than a ring; a
    /// few more keys move when endpoints come or go. Without a hash: at random.
    Maglev,
    /// By the client's address, also for tcp listeners: Maglev, whatever the route's `hash` says.
    IpHash,
}

impl Balance {
    /// Whether the hash of a key chooses.
    pub fn is_hashing(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev | Self::IpHash)
    }

    /// The word of the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastRequest => "least_request",
            Self::PeakEwma => "peak_ewma",
            Self::RingHash => "ring_hash",
            Self::Maglev => "maglev",
            Self::IpHash => "ip_hash",
        }
    }
}

/// How endpoints that are new or healthy again come to their whole share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// How long that takes; more than none.
    pub window: Duration,
    /// The share of the weight is (age / window)^(1 / aggression); at least 1.
    pub aggression: u32,
    /// It is never below this, in percent.
    pub min_weight_percent: u8,
}

/// A part of what a request is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPolicy {
    /// What is hashed.
    pub on: HashOn,
    /// If there is a hash after this one, those behind it are left out.
    pub terminal: bool,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The values of the header of this name.
    Header(Box<str>),
    /// The value of a cookie.
    Cookie {
        /// Its name.
        name: Box<str>,
        /// How it is made for a client that has none; `None`: it is not.
        new: Option<NewCookie>,
    },
    /// The client's address.
    SourceIp,
    /// The value of the query parameter of this name.
    QueryParameter(Box<str>),
}

/// A cookie that we make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCookie {
    /// How long the client keeps it; none: until it is closed.
    pub ttl: Duration,
    /// The paths that it is for.
    pub path: Option<Box<str>>,
}

impl fmt::Display for HashPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.on {
            HashOn::Header(name) => write!(f, "header {name}")?,
            HashOn::Cookie { name, new } => {
                write!(f, "cookie {name}")?;
                if let Some(new) = new {
                    write!(f, " (made if missing, ttl {})", Time(new.ttl))?;
                }
            }
            HashOn::SourceIp => f.write_str("source_ip")?,
            HashOn::QueryParameter(name) => write!(f, "query_parameter {name}")?,
        }
        if self.terminal {
            f.write_str(", terminal")?;
        }
        Ok(())
    }
}
