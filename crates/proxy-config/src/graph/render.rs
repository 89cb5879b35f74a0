//! Graphs as text, DOT and Mermaid.
//!
//! Owns the quoting of labels, which hold what users wrote.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Graph, GraphEdge, GraphNode, GraphNodeKind};

impl Graph {
    /// An indented tree, listeners at the margin. A cluster is written out where it first occurs.
    pub fn to_text(&self) -> String {
        let nodes: BTreeMap<_, _> = self.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
        let mut edges: BTreeMap<&str, Vec<&GraphEdge>> = BTreeMap::new();
        for edge in &self.edges {
            edges.entry(&edge.from).or_default().push(edge);
        }
        let mut written = std::collections::BTreeSet::new();
        let mut out = String::new();
        let targets: std::collections::BTreeSet<_> =
            self.edges.iter().map(|edge| edge.to.as_str()).collect();
        let roots = self
            .nodes
            .iter()
            .filter(|node| !targets.contains(node.id.as_str()));
        // A stack of its own: depth is five, and the order is that of the edges.
        for root in roots {
            let mut open = vec![(root.id.as_str(), "", 0)];
            while let Some((id, label, depth)) = open.pop() {
                let Some(node) = nodes.get(id) else { continue };
                let share = if label.is_empty() {
                    String::new()
                } else {
                    format!(" ({label})")
                };
                let _ = writeln!(
                    out,
                    "{}{} {}{share}",
                    "  ".repeat(depth),
                    word(node),
                    node.label
                );
                let is_first = written.insert(id);
                if is_first {
                    let next = edges.get(id).into_iter().flatten().rev();
                    open.extend(next.map(|e| (e.to.as_str(), e.label.as_str(), depth + 1)));
                }
            }
        }
        out
    }

    /// Graphviz's language.
    pub fn to_dot(&self) -> String {
        let mut out = "digraph skein {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
        for node in &self.nodes {
            let label = format!("{} {}", word(node), node.label);
            let _ = writeln!(out, "  {} [label={}];", dot(&node.id), dot(&label));
        }
        for GraphEdge { from, to, label } in &self.edges {
            let _ = writeln!(
                out,
                "  {} -> {} [label={}];",
                dot(from),
                dot(to),
                dot(label)
            );
        }
        out + "}\n"
    }

    /// Mermaid's language. Its ids are numbers, for it knows no quoting of ids.
    pub fn to_mermaid(&self) -> String {
        let mut out = "flowchart LR\n".to_owned();
        let mut ids = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            ids.insert(node.id.as_str(), number);
            let label = format!("{} {}", word(node), node.label);
            let _ = writeln!(out, "  n{number}[\"{}\"]", mermaid(&label));
        }
        for edge in &self.edges {
            let ends = (ids.get(edge.from.as_str()), ids.get(edge.to.as_str()));
            let (Some(from), Some(to)) = ends else {
                continue;
            };
            let _ = match edge.label.as_str() {
                "" => writeln!(out, "  n{from} --> n{to}"),
                label => writeln!(out, "  n{from} -- \"{}\" --> n{to}", mermaid(label)),
            };
        }
        out
    }
}

fn word(node: &GraphNode) -> &'static str {
    match node.kind {
        GraphNodeKind::Listener => "listener",
        GraphNodeKind::VirtualHost => "virtual host",
        GraphNodeKind::Route => "route",
        GraphNodeKind::Cluster => "cluster",
        GraphNodeKind::Endpoint => "endpoint",
    }
}

fn dot(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn mermaid(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
