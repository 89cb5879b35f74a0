//! Config of the proxy: raw text → typed resources → linked → compiled, and the router that
//! results.
//!
//! Pure: no I/O, no clock, no randomness. Never decides when a config comes into force.

mod action;
mod assemble;
mod balance;
mod compile;
pub mod compiled;
mod connections;
mod decode;
mod diff;
mod expect;
mod explain;
mod fault;
mod graph;
mod header;
mod host;
mod link;
mod mirror;
mod origin;
mod outlier;
mod parse;
mod path;
mod pattern;
mod proxy_protocol;
mod registration;
pub mod resource;
mod retry;
mod rewrite;
mod router;
mod schema;
mod set;
mod since;
mod sni;
mod subset;
mod tls;
mod tree;
mod units;
mod upgrade;
mod upstream_http;
mod words;

pub use compile::{Checked, Compiled, RESOURCES_MAX, check, compile};
pub use diff::{ListenerDiff, diff};
pub use explain::{
    Ask, AskFault, Chosen, EndpointHealth, ExplainedEjection, ExplainedEndpoint, ExplainedHeaders,
    ExplainedHost, ExplainedListener, ExplainedRetry, ExplainedTarget, Explanation, Live,
    TriedRoute, Verdict, explain, explain_live,
};
pub use fault::{Fault, Location};
pub use graph::{Graph, GraphEdge, GraphNode, GraphNodeKind, graph, graph_with};
pub use header::{HeaderChange, HeaderChanges, HeaderTemplate, Variable};
pub use host::{Authority, Domain, HostFault, normalize_host, split_host};
pub use origin::ENDPOINTS_MAX;
pub use parse::{parse_documents, parse_sources, parse_value};
pub use path::{EscapedSlashes, PathFault, normalize_path};
pub use pattern::{PathTemplate, Pattern};
pub use registration::{REGISTRATION_BYTES_MAX, Registration, Registry, check_registration};
pub use resource::{Kind, ParseKindError, RESOURCE_BYTES_MAX, Resource, ResourceId};
pub use rewrite::{RewriteFault, SearchPattern, TemplateText};
pub use router::{
    Conditions, HeaderCondition, Mismatch, PathCondition, QueryCondition, RequestView, RouteMatch,
    Router, ValueCondition, VirtualHost,
};
pub use schema::json_schema;
pub use set::{Change, ConfigSet};
pub use since::newer_than;
pub use tree::INPUT_BYTES_MAX;
pub use units::{Size, Time, UnitFault};
pub use words::{
    Address, AlpnName, Bind, DEFAULT_NAMESPACE, FilePath, GrpcName, HeaderName, HeaderText,
    HostPort, Method, Name, Network, PathText, ProbePath, Reference, ServerName, SubjectName,
    UpgradeName, WordFault,
};
