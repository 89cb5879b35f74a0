//! The index over a virtual host's routes: a tree of path segments whose nodes hold candidates.
//!
//! Owns that the first matching route wins at a cost that follows the request: one step per path
//! segment, and per step only the routes with that very path, of which those with an exact header
//! or query parameter are found by hash. At a template's variable the tree is followed two ways, and
//! no template has many. Regular expressions wait where the segments that they surely begin with end;
//! where they are many, one pass over the path finds all that match. Never decides what a condition
//! means.

use std::borrow::Cow;
use std::sync::Arc;

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::value::{encoded, query_value};
use super::{Conditions, HashMap, PathCondition, RequestView};
use crate::compiled::Route;
use crate::pattern::{PATTERN_SIZE_MAX, Segment, split_segment};

/// From so many expressions in one place on, they are tried as one.
const SET_FROM: usize = 4;
/// The most memory of such a set; beyond it, they are tried one by one.
const SET_SIZE_MAX: usize = 64 * PATTERN_SIZE_MAX;

/// The routes of one virtual host and their index.
#[derive(Debug)]
pub(super) struct RouteTable {
    routes: Box<[(Conditions, Arc<Route>)]>,
    /// The candidates for every path.
    any: Bucket,
    /// Regular expressions of which no segment is sure.
    loose: Regexes,
    /// The tree; the first node is `/`.
    nodes: Vec<Node>,
}

/// One path segment, as reached from the root.
#[derive(Debug, Default)]
struct Node {
    /// Routes whose prefix ends here.
    prefix: Bucket,
    /// Routes whose exact path, or template, ends here.
    exact: Bucket,
    /// Routes whose template takes all that is left.
    rest: Bucket,
    /// Routes whose regular expression begins with the segments up to here, if any.
    regexes: Option<Box<Regexes>>,
    children: HashMap<Box<str>, u32>,
    /// The child for a template's variable.
    variable: Option<u32>,
}

/// Routes with a regular expression, ascending.
#[derive(Debug, Default)]
struct Regexes {
    routes: Vec<u32>,
    /// All of them at once, where they are many.
    set: Option<RegexSet>,
}

/// Which regular expressions are candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Regex {
    /// Those that match.
    Matching,
    /// All in the right place.
    Placed,
}

/// Routes with the same path condition. All lists ascend.
#[derive(Debug, Default)]
struct Bucket {
    /// Those without an exact header or query parameter.
    plain: Vec<u32>,
    /// Those with one. Most buckets have none, and there are many buckets.
    exact: Option<Box<ByName>>,
    /// Nothing after a route that takes all requests of its path can be reached.
    closed: bool,
}

/// Routes by something that they demand exactly.
#[derive(Debug, Default)]
struct ByName {
    /// By the name and value of their first exact header.
    header: Vec<(Box<str>, ByValue)>,
    /// By an exact query parameter instead, likewise.
    query: Vec<(Box<str>, ByValue)>,
}

type ByValue = HashMap<Box<str>, Vec<u32>>;

impl Bucket {
    fn push(&mut self, index: u32, conditions: &Conditions) {
        if self.closed {
            return;
        }
        self.closed = conditions.is_path_only();
        let header = conditions
            .headers
            .iter()
            .find_map(|header| Some((&header.name, header.exact()?)));
        let query = conditions
            .query
            .iter()
            .find_map(|query| Some((&query.name, query.value.exact()?)));
        match (header, query) {
            (Some((name, value)), _) => {
                insert(
                    &mut self.exact.get_or_insert_default().header,
                    name,
                    value,
                    index,
                );
            }
            (None, Some((name, value))) => {
                insert(
                    &mut self.exact.get_or_insert_default().query,
                    name,
                    value,
                    index,
                );
            }
            (None, None) => self.plain.push(index),
        }
    }

    /// Calls `visit` with each ascending list of routes that may match.
    fn candidates<'a>(&'a self, request: &RequestView<'_>, visit: &mut dyn FnMut(&'a [u32])) {
        visit(&self.plain);
        let Some(exact) = &self.exact else {
            return;
        };
        for (name, values) in &exact.header {
            if let Some(list) = (request.header)(name).and_then(|value| values.get(&*value)) {
                visit(list);
            }
        }
        for (name, values) in &exact.query {
            if let Some(list) = query_value(request.query, name).and_then(|it| values.get(&*it)) {
                visit(list);
            }
        }
    }
}

fn insert(index: &mut Vec<(Box<str>, ByValue)>, name: &str, value: &str, route: u32) {
    let at = index
        .iter()
        .position(|(known, _)| **known == *name)
        .unwrap_or_else(|| {
            index.push((name.into(), HashMap::default()));
            index.len() - 1
        });
    index[at].1.entry(value.into()).or_default().push(route);
}

impl Regexes {
    /// Makes the set, when all routes are there.
    fn complete(&mut self, routes: &[(Conditions, Arc<Route>)]) {
        if self.routes.len() < SET_FROM {
            return;
        }
        let whole = |index: &u32| match &routes[*index as usize].0.path {
            PathCondition::Regex(pattern) => pattern.whole(),
            _ => "",
        };
        let set = RegexSetBuilder::new(self.routes.iter().map(whole))
            .unicode(false)
            .size_limit(SET_SIZE_MAX)
            .dfa_size_limit(SET_SIZE_MAX)
            .build();
        self.set = set.ok();
    }

    fn candidates<'a>(
        &'a self,
        routes: &[(Conditions, Arc<Route>)],
        (path, which): (&str, Regex),
        visit: &mut dyn FnMut(&'a [u32]),
    ) {
        match (&self.set, which) {
            (Some(set), Regex::Matching) => {
                for at in set.matches(path.as_bytes()) {
                    visit(std::slice::from_ref(&self.routes[at]));
                }
            }
            (None, Regex::Matching) => {
                for index in &self.routes {
                    if routes[*index as usize].0.path.matches(path) {
                        visit(std::slice::from_ref(index));
                    }
                }
            }
            (_, Regex::Placed) => visit(&self.routes),
        }
    }
}

impl RouteTable {
    pub(super) fn new(routes: Vec<(Conditions, Arc<Route>)>) -> Self {
        let mut table = Self {
            routes: routes.into(),
            any: Bucket::default(),
            loose: Regexes::default(),
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
                PathCondition::Template(template) => {
                    let (node, is_rest) = grow_template(&mut table.nodes, template.segments());
                    let bucket = if is_rest {
                        &mut node.rest
                    } else {
                        &mut node.exact
                    };
                    bucket.push(at, conditions);
                }
                PathCondition::Regex(pattern) => {
                    let regexes = match pattern.head() {
                        Some(head) => grow(&mut table.nodes, head).regexes.get_or_insert_default(),
                        None => &mut table.loose,
                    };
                    regexes.routes.push(at);
                }
            }
        }
        table.loose.complete(&table.routes);
        for regexes in table
            .nodes
            .iter_mut()
            .filter_map(|node| node.regexes.as_mut())
        {
            regexes.complete(&table.routes);
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
        self.visit(request, Regex::Matching, &mut |list| {
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
                all.map(|header| header.exact().unwrap_or_default())
                    .max()
                    .map(Cow::Borrowed)
            };
            let path = match &conditions.path {
                PathCondition::Any => "*".to_owned(),
                PathCondition::Prefix(path) | PathCondition::Exact(path) => path.to_string(),
                PathCondition::Template(template) => template.example(),
                PathCondition::Regex(pattern) => match pattern.head() {
                    Some(head) => format!("{head}/"),
                    None => "*".to_owned(),
                },
            };
            let exact = conditions.query.iter();
            let exact = exact.filter_map(|one| Some(encoded(&one.name, one.value.exact()?)));
            let query = exact.collect::<Vec<_>>().join("&");
            let method = conditions.methods.first().map_or("", |method| &**method);
            let request = RequestView {
                host: "",
                path: &path,
                query: &query,
                method,
                header: &header,
            };
            let mut by = None;
            self.visit(&request, Regex::Placed, &mut |list| {
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
    fn visit<'a>(
        &'a self,
        request: &RequestView<'_>,
        which: Regex,
        visit: &mut dyn FnMut(&'a [u32]),
    ) {
        self.any.candidates(request, visit);
        let asked = (request.path, which);
        self.loose.candidates(&self.routes, asked, visit);
        if let Some(rest) = request.path.strip_prefix('/') {
            self.descend(0, Some(rest), request, which, visit);
        }
    }

    /// Visits what lies at a node and below it on the way of the path of which `rest` is left.
    /// Calls itself once for each variable on the way, of which no template has many.
    fn descend<'a>(
        &'a self,
        at: u32,
        mut rest: Option<&str>,
        request: &RequestView<'_>,
        which: Regex,
        visit: &mut dyn FnMut(&'a [u32]),
    ) {
        let mut node = &self.nodes[at as usize];
        loop {
            node.prefix.candidates(request, visit);
            if let Some(regexes) = &node.regexes {
                regexes.candidates(&self.routes, (request.path, which), visit);
            }
            let Some(left) = rest else {
                node.exact.candidates(request, visit);
                return;
            };
            if !left.is_empty() {
                node.rest.candidates(request, visit);
            }
            let (segment, after) = split_segment(left);
            if let Some(variable) = node.variable
                && !segment.is_empty()
            {
                self.descend(variable, after, request, which, visit);
            }
            let Some(child) = node.children.get(segment) else {
                return;
            };
            node = &self.nodes[*child as usize];
            rest = after;
        }
    }

    /// How many routes a look-up takes a look at.
    #[cfg(test)]
    pub(super) fn looked_at(&self, request: &RequestView<'_>) -> usize {
        let mut candidates = 0;
        self.visit(request, Regex::Matching, &mut |list| {
            candidates += list.len()
        });
        candidates
    }
}

/// The node of `path`, made where it is missing. `""` is the root, `/` a child of it.
fn grow<'a>(nodes: &'a mut Vec<Node>, path: &str) -> &'a mut Node {
    let mut at = 0;
    for segment in path.split('/').skip(1) {
        at = child(nodes, at, segment);
    }
    &mut nodes[at]
}

/// The node where a template ends, and whether it takes all that is left there.
fn grow_template<'a>(nodes: &'a mut Vec<Node>, segments: &[Segment]) -> (&'a mut Node, bool) {
    let mut at = 0;
    for segment in segments {
        at = match segment {
            Segment::Literal(literal) => child(nodes, at, literal),
            Segment::One => variable(nodes, at),
            Segment::Rest => return (&mut nodes[at], true),
        };
    }
    (&mut nodes[at], false)
}

fn child(nodes: &mut Vec<Node>, at: usize, segment: &str) -> usize {
    if let Some(child) = nodes[at].children.get(segment) {
        return *child as usize;
    }
    let id = new_node(nodes);
    nodes[at].children.insert(segment.into(), id);
    id as usize
}

fn variable(nodes: &mut Vec<Node>, at: usize) -> usize {
    if let Some(variable) = nodes[at].variable {
        return variable as usize;
    }
    let id = new_node(nodes);
    nodes[at].variable = Some(id);
    id as usize
}

fn new_node(nodes: &mut Vec<Node>) -> u32 {
    let id = u32::try_from(nodes.len()).expect("a document cannot hold 2^32 segments");
    nodes.push(Node::default());
    id
}
