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
            Form::Text => self.graph.text(),
            Form::Dot => self.graph.dot(),
            Form::Mermaid => self.graph.mermaid(),
        };
        out.write_all(text.as_bytes())
    }
}
