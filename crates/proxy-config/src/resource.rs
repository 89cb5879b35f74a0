//! Resources as people write them and as the store keeps them.
//!
//! Owns identity (kind, namespace, name and the key made of them), what all kinds have in common,
//! and the canonical JSON. Never looks at a second resource: that is `link`.

mod action;
mod cluster;
mod connections;
mod defaults;
mod hash;
mod headers;
mod listener;
mod matching;
mod mirror;
mod outlier;
mod proxy_protocol;
mod retry;
pub(crate) mod selector;
mod server_names;
mod subsets;
mod targets;
mod tls;
mod virtual_host;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::CONFIG_PREFIX;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compiled::ResourceName;
use crate::fault::{Location, suggest};
use crate::words::Name;

pub use action::{RedirectSpec, RegexRewriteSpec, RespondSpec, RewriteSpec, Scheme};
pub use cluster::{ClusterSpec, EndpointSpec, LimitsSpec, ProbeSpec, SlowStartSpec};
pub use connections::{ConnectionKeepaliveSpec, ConnectionsSpec, TcpKeepaliveSpec};
pub use defaults::DefaultsSpec;
pub use hash::{CookieName, CookieSpec, HashSpec};
pub use headers::{HeaderEditsSpec, HeadersSpec};
pub use listener::{ListenerProtocol, ListenerSpec};
pub use matching::{HeaderSpec, QuerySpec};
pub use mirror::{MirrorSpec, Percent};
pub use outlier::OutlierSpec;
pub use proxy_protocol::{ProxyProtocolFields, ProxyProtocolSpec};
pub use retry::{BackOffSpec, RetrySpec, RetryWord};
pub use selector::NodeSelector;
pub use server_names::{TlsMatchSpec, TlsRouteSpec};
pub use subsets::{FallbackWord, SubsetsSpec};
pub use targets::Targets;
pub use tls::{
    CertificateSpec, ClientCertificateMode, ClientCertificateSpec, ClusterTlsSpec, ListenerTlsSpec,
    TlsMode,
};
pub use virtual_host::{Expectation, MatchSpec, RouteSpec, VirtualHostSpec};

/// The version of the stored form.
pub(crate) const SCHEMA: u32 = 1;
/// The largest canonical form of one resource; more is refused. Below what one request to the store
/// may carry.
pub const RESOURCE_BYTES_MAX: usize = 1 << 20;

/// What a resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Mesh-wide settings.
    Defaults,
    /// A group of upstream endpoints.
    Cluster,
    /// Routes for some domains.
    VirtualHost,
    /// A bound address.
    Listener,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::Defaults,
        Self::Cluster,
        Self::VirtualHost,
        Self::Listener,
    ];

    /// The word, as in `kind: Listener`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Defaults => "Defaults",
            Self::Cluster => "Cluster",
            Self::VirtualHost => "VirtualHost",
            Self::Listener => "Listener",
        }
    }

    /// The kind that is written exactly so.
    fn from_exact(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The remedy for a word that is no kind.
    pub(crate) fn suggest(word: &str) -> String {
        suggest(word, &Self::ALL.map(Self::as_str))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a kind; {remedy}")]
pub struct ParseKindError {
    word: String,
    remedy: String,
}

impl FromStr for Kind {
    type Err = ParseKindError;

    /// Reads the word as people type it: in any case, with `-` or `_` or without, in the plural
    /// too.
    fn from_str(text: &str) -> Result<Self, ParseKindError> {
        let plain = |word: &str| word.to_ascii_lowercase().replace(['-', '_'], "");
        let word = plain(text);
        let fits = |kind: &Self| {
            let known = plain(kind.as_str());
            word == known || word.strip_suffix('s') == Some(known.as_str())
        };
        Self::ALL
            .into_iter()
            .find(fits)
            .ok_or_else(|| ParseKindError {
                word: text.to_owned(),
                remedy: Self::suggest(text),
            })
    }
}

/// Which resource: at most one has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ResourceName,
}

impl ResourceId {
    /// The key in the store.
    pub fn key(&self) -> String {
        format!(
            "{CONFIG_PREFIX}{}/{}/{}",
            self.name.namespace, self.kind, self.name.name
        )
    }

    /// The resource that a key holds; `None` where the key is of another form.
    pub fn from_key(key: &str) -> Option<Self> {
        let mut parts = key.strip_prefix(CONFIG_PREFIX)?.split('/');
        let namespace: Name = parts.next()?.parse().ok()?;
        let kind = Kind::from_exact(parts.next()?)?;
        let name: Name = parts.next()?.parse().ok()?;
        let name = ResourceName {
            namespace: namespace.shared().clone(),
            name: name.shared().clone(),
        };
        parts.next().is_none().then_some(Self { kind, name })
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What all kinds have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The namespace; `default` unless given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub namespace: Name,
    /// The name, unique for its kind in the namespace. (Defaults need none.)
    pub name: Name,
    /// Words for people and tools to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Notes for people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The nodes where it applies; left out: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeSelector>,
}

/// What a resource says beyond its [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// Mesh-wide settings.
    Defaults(DefaultsSpec),
    /// A group of upstream endpoints.
    Cluster(Box<ClusterSpec>),
    /// Routes for some domains.
    VirtualHost(VirtualHostSpec),
    /// A bound address.
    Listener(ListenerSpec),
}

/// A resource whose every word is well-formed. Whether it fits with others, `check` says.
#[derive(Debug, Clone)]
pub struct Resource {
    /// What all kinds have in common.
    pub metadata: Metadata,
    /// The rest.
    pub spec: Spec,
    /// Where it was written, if it comes from an input. Not a part of what it says.
    pub location: Option<Location>,
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.metadata == other.metadata && self.spec == other.spec
    }
}

impl Eq for Resource {}

/// The stored form: what reads it finds the version first.
#[derive(Serialize)]
struct Stored<'a> {
    schema: u32,
    kind: Kind,
    #[serde(flatten)]
    metadata: &'a Metadata,
    #[serde(flatten)]
    spec: &'a Spec,
}

impl Resource {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.spec {
            Spec::Defaults(_) => Kind::Defaults,
            Spec::Cluster(_) => Kind::Cluster,
            Spec::VirtualHost(_) => Kind::VirtualHost,
            Spec::Listener(_) => Kind::Listener,
        }
    }

    /// Its namespace and name.
    pub fn name(&self) -> ResourceName {
        ResourceName {
            namespace: self.metadata.namespace.shared().clone(),
            name: self.metadata.name.shared().clone(),
        }
    }

    /// Which resource it is.
    pub fn id(&self) -> ResourceId {
        ResourceId {
            kind: self.kind(),
            name: self.name(),
        }
    }

    /// Its key in the store.
    pub fn key(&self) -> String {
        self.id().key()
    }

    /// The form in which the store keeps it: fields in a fixed order, defaults left out, units in
    /// their largest whole form. Resources that say the same have the same.
    pub fn canonical_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.stored()).expect("every field has a JSON form")
    }

    /// The canonical form as YAML, for people to edit and apply.
    pub fn to_yaml(&self) -> String {
        // By way of JSON's types: texts that YAML would read as something else get quotes.
        let value = serde_json::to_value(self.stored()).expect("every field has a JSON form");
        serde_saphyr::to_string(&value).expect("what has a JSON form has a YAML form")
    }

    fn stored(&self) -> Stored<'_> {
        Stored {
            schema: SCHEMA,
            kind: self.kind(),
            metadata: &self.metadata,
            spec: &self.spec,
        }
    }

    pub(crate) fn namespace(&self) -> &Arc<str> {
        self.metadata.namespace.shared()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
