//! `skein explain`: what a node would do with a request, without sending one.
//!
//! Owns the request as it is written on the command line. Never routes: the node's compiled config
//! does.

use std::io::{self, Write};

use control_api::v1;
use proxy_config::{Ask, AskFault, Explanation};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// The options of `skein explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The URL: http://host:port/path, tcp://host:port, or /path alone for the first http listener
    #[arg(value_parser = url)]
    url: String,
    /// The Host header, when it is not the URL's host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A header; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<v1::Header>,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The node that is asked, by name [default: the first endpoint that answers]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// Takes what the node will be able to read.
fn url(text: &str) -> Result<String, AskFault> {
    Ask::get(text).map(|_| text.to_owned())
}

/// Reads `name: value`.
fn header(text: &str) -> Result<v1::Header, String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("expected `name: value`, the name without spaces".to_owned());
    }
    Ok(v1::Header { name, value })
}

impl MeshCommand for Explain {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let request = v1::ExplainRequest {
            url: self.url,
            host: self.host.unwrap_or_default(),
            headers: self.headers,
            method: self.method,
        };
        let response = session.explain(self.node.as_deref(), request).await?;
        let node = response.answered_by;
        let explanation = serde_json::from_slice(&response.json).map_err(|error| {
            Failure::failed(format!(
                "the answer of {node} cannot be read ({error}); is it of the same release?"
            ))
        })?;
        output.show(&ExplainReport { node, explanation })
    }
}

/// What `explain` answers.
#[derive(Serialize)]
struct ExplainReport {
    node: String,
    #[serde(flatten)]
    explanation: Explanation,
}

impl Report for ExplainReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "node {}", self.node)?;
        writeln!(out, "{}", self.explanation.to_string().trim_end())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    #[test]
    fn headers_are_name_and_value() {
        let parsed = header("x-tenant: blue: dark").unwrap();
        assert_eq!((&*parsed.name, &*parsed.value), ("x-tenant", "blue: dark"));
        assert_eq!(header("x-empty:").unwrap().value, "");
        for bad in ["x-tenant", ": v", "a b: c"] {
            assert!(header(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_explanation_names_its_node_in_both_forms() {
        let explanation = json!({
            "config_revision": 5, "method": "GET", "host": "a.test", "path": "/x",
            "listener": {"name": "edge", "bind": "0.0.0.0:80", "protocol": "http"},
            "virtual_host": null, "tried": [], "untold": 0, "chosen": null,
            "outcome": "404: no virtual host of this listener serves a.test",
        });
        let mut expected = explanation.clone();
        expected["node"] = json!("n2");
        let explanation = serde_json::from_value(explanation).unwrap();
        let (text, json) = rendered(&ExplainReport {
            node: "n2".into(),
            explanation,
        });
        assert_eq!(json, expected);
        assert!(
            text.starts_with("node n2\nGET /x for host a.test\n"),
            "{text}"
        );
        assert!(text.ends_with("(config revision 5)\n"), "{text}");
    }
}
