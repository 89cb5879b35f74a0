//! `skein graph`: the config in force as a dataflow graph.
//!
//! Owns the choice of the form. Never draws: `proxy-config` does.

use std::io::{self, Write};

use proxy_config::Graph;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// The options of `skein graph`.
#[derive(Debug, clap::Args)]
pub(crate) struct GraphCommand {
    /// The form of the text; with `-o json` it is ignored
    #[arg(
        long,
        value_name = "text|dot|mermaid",
        hide_possible_values = true,
        default_value = "text"
    )]
    format: Form,
}

/// The forms of the graph's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// Indented lines, to read.
    Text,
    /// Graphviz: `| dot -Tsvg`.
    Dot,
    /// Mermaid, for Markdown.
    Mermaid,
}

impl MeshCommand for GraphCommand {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let response = session.graph().await?;
        let graph = serde_json::from_slice(&response.json).map_err(|error| {
            let node = response.answered_by;
            Failure::failed(format!(
                "the graph of {node} cannot be read ({error}); is it of the same release?"
            ))
        })?;
        output.show(&GraphReport {
            graph,
            form: self.format,
        })
    }
}

/// What `graph` answers.
#[derive(Serialize)]
#[serde(transparent)]
struct GraphReport {
    graph: Graph,
    #[serde(skip)]
    form: Form,
}

impl Report for GraphReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = match self.form {
            Form::Text => self.graph.to_text(),
            Form::Dot => self.graph.to_dot(),
            Form::Mermaid => self.graph.to_mermaid(),
        };
        out.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    fn report(form: Form) -> GraphReport {
        let graph = serde_json::from_value(json!({
            "nodes": [
                {"id": "listener:default/edge", "kind": "listener", "label": "edge http 0.0.0.0:80"},
                {"id": "cluster:default/web", "kind": "cluster", "label": "web"},
            ],
            "edges": [{"from": "listener:default/edge", "to": "cluster:default/web", "label": ""}],
        }));
        GraphReport {
            graph: graph.unwrap(),
            form,
        }
    }

    #[test]
    fn each_form_is_its_own_language() {
        let text = |form| rendered(&report(form)).0;
        assert!(
            text(Form::Text).contains("\n  cluster web"),
            "{}",
            text(Form::Text)
        );
        assert!(
            text(Form::Dot).starts_with("digraph"),
            "{}",
            text(Form::Dot)
        );
        assert!(
            text(Form::Mermaid).starts_with("flowchart"),
            "{}",
            text(Form::Mermaid)
        );
    }

    #[test]
    fn programs_see_nodes_and_edges_whatever_the_form() {
        let json = rendered(&report(Form::Dot)).1;
        assert_eq!(json["nodes"][1]["id"], "cluster:default/web");
        assert_eq!(json["edges"][0]["to"], "cluster:default/web");
    }
}
