//! The index over a virtual host's routes: a tree of path segments whose nodes hold candidates.
//!
//! Owns that the first matching route wins at a cost that follows the request: one step per path
//! segment, and per step only the routes with that very path, of which those with an exact header
//! are found by hash. Never decides what a condition means.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Conditions, HashMap, PathCondition, RequestView};
use crate::compiled::Route;

/// The routes of one virtual host and their index.
#[derive(Debug)]
pub(super) struct RouteTable {
    routes: Box<[(Conditions, Arc<Route>)]>,
    /// The candidates for every path.
    any: Bucket,
    /// The tree; the first node is `/`.
    nodes: Vec<Node>,
}

/// One path segment, as reached from the root.
#[derive(Debug, Default)]
struct Node {
    /// Routes whose prefix ends here.
    prefix: Bucket,
    /// Routes whose exact path ends here.
    exact: Bucket,
    children: HashMap<Box<str>, u32>,
}

/// Routes with the same path condition. All lists ascend.
#[derive(Debug, Default)]
struct Bucket {
    /// Those without an exact header.
    plain: Vec<u32>,
    /// Those with one, by the name and value of their first.
    by_header: Vec<(Box<str>, ByValue)>,
    /// Nothing after a route that takes all requests of its path can be reached.
    closed: bool,
}

type ByValue = HashMap<Box<str>, Vec<u32>>;

impl Bucket {
    fn push(&mut self, index: u32, conditions: &Conditions) {
        if self.closed {
            return;
        }
        self.closed = conditions.is_path_only();
        let exact = conditions
            .headers
            .iter()
            .find_map(|header| Some((&header.name, header.exact.as_ref()?)));
        let Some((name, value)) = exact else {
            self.plain.push(index);
            return;
        };
        let at = self
            .by_header
            .iter()
            .position(|(known, _)| known == name)
            .unwrap_or_else(|| {
                self.by_header.push((name.clone(), HashMap::default()));
                self.by_header.len() - 1
            });
        self.by_header[at]
            .1
            .entry(value.clone())
            .or_default()
            .push(index);
    }

    /// Calls `visit` with each ascending list of routes that may match.
    fn candidates<'a>(&'a self, request: &RequestView<'_>, mut visit: impl FnMut(&'a [u32])) {
        visit(&self.plain);
        for (name, values) in &self.by_header {
            if let Some(list) = (request.header)(name).and_then(|value| values.get(&*value)) {
                visit(list);
            }
        }
    }
}

impl RouteTable {
    pub(super) fn new(routes: Vec<(Conditions, Arc<Route>)>) -> Self {
        let mut table = Self {
            routes: routes.into(),
            any: Bucket::default(),
            nodes: vec![Node::default()],
        };
        for index in 0..table.routes.len() {
            let (conditions, _) = &table.routes[index];
            let at = u32::try_from(index).expect("a document cannot hold 2^32 routes");
            match &conditions.path {
                PathCondition::Any => table.any.push(at, conditions),
                PathCondition::Prefix(prefix) => {
                    let node = grow(&mut table.nodes, prefix.trim_end_matches('/'));
                    node.prefix.push(at, conditions);
                }
                PathCondition::Exact(path) => {
                    grow(&mut table.nodes, path).exact.push(at, conditions);
                }
            }
        }
        table.nodes.shrink_to_fit();
        table
    }

    pub(super) fn routes(&self) -> &[(Conditions, Arc<Route>)] {
        &self.routes
    }

    /// The index of the first route whose conditions hold.
    pub(super) fn find(&self, request: &RequestView<'_>) -> Option<usize> {
        let mut best = u32::MAX;
        self.visit(request, |list| {
            let earlier = list.iter().take_while(|index| **index < best);
            let found = earlier.copied().find(|index| {
                self.routes[*index as usize]
                    .0
                    .check_beyond_path(request)
                    .is_ok()
            });
            best = found.unwrap_or(best);
        });
        (best != u32::MAX).then_some(best as usize)
    }

    /// See [`super::VirtualHost::unreachable`]. A route that covers another one matches the plainest
    /// request of it, so only the candidates for that request are looked at.
    pub(super) fn unreachable(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (index, (conditions, _)) in self.routes.iter().enumerate() {
            let header = |name: &str| {
                let all = conditions
                    .headers
                    .iter()
                    .filter(|header| *header.name == *name);
                all.map(|header| header.exact.as_deref().unwrap_or_default())
                    .max()
                    .map(Cow::Borrowed)
            };
            let path = match &conditions.path {
                PathCondition::Any => "*",
                PathCondition::Prefix(path) | PathCondition::Exact(path) => path,
            };
            let method = conditions.methods.first().map_or("", |method| &**method);
            let request = RequestView {
                host: "",
                path,
                method,
                header: &header,
            };
            let mut by = None;
            self.visit(&request, |list| {
                let earlier = list
                    .iter()
                    .map(|at| *at as usize)
                    .take_while(|at| *at < index);
                let cover = earlier
                    .into_iter()
                    .find(|at| self.routes[*at].0.covers(conditions));
                by = [by, cover].into_iter().flatten().min();
            });
            found.extend(by.map(|by| (index, by)));
        }
        found
    }

    /// Calls `visit` with every list of routes whose path condition holds.
    pub(super) fn visit<'a>(&'a self, request: &RequestView<'_>, mut visit: impl FnMut(&'a [u32])) {
        self.any.candidates(request, &mut visit);
        let Some(rest) = request.path.strip_prefix('/') else {
            return;
        };
        let mut node = &self.nodes[0];
        node.prefix.candidates(request, &mut visit);
        for segment in rest.split('/') {
            let Some(child) = node.children.get(segment) else {
                return;
            };
            node = &self.nodes[*child as usize];
            node.prefix.candidates(request, &mut visit);
        }
        node.exact.candidates(request, &mut visit);
    }
}

/// The node of `path`, made where it is missing. `""` is the root, `/` a child of it.
fn grow<'a>(nodes: &'a mut Vec<Node>, path: &str) -> &'a mut Node {
    let mut at = 0;
    for segment in path.split('/').skip(1) {
        at = match nodes[at].children.get(segment) {
            Some(child) => *child as usize,
            None => {
                let child = nodes.len();
                let id = u32::try_from(child).expect("a document cannot hold 2^32 segments");
                nodes[at].children.insert(segment.into(), id);
                nodes.push(Node::default());
                child
            }
        };
    }
    &mut nodes[at]
}
