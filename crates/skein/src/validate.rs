//! `skein config validate` and `skein config schema`: what can be known without a mesh.
//!
//! Owns the two commands. Never connects.

use std::io::{self, Write};

use proxy_config::{ConfigSet, check};
use serde::Serialize;

use crate::documents::Inputs;
use crate::failure::Failure;
use crate::output::{Format, Output, Report};

/// The options of `skein config validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    #[command(flatten)]
    inputs: Inputs,
    /// Namespace of resources that do not say theirs
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How to write the result and errors
    #[arg(
        short,
        long,
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    pub(crate) output: Format,
}

/// What `config validate` answers.
#[derive(Debug, Serialize)]
struct ValidateReport {
    valid: bool,
    resources: usize,
}

impl Validate {
    /// Checks the documents as if they were the whole config.
    pub(crate) fn run(&self, output: &mut Output<'_>) -> Result<(), Failure> {
        let set: ConfigSet = self
            .inputs
            .load(self.namespace.as_deref())?
            .into_iter()
            .collect();
        check(&set).map_err(|faults| Failure::invalid(&faults))?;
        output.show(&ValidateReport {
            valid: true,
            resources: set.len(),
        })
    }
}

impl Report for ValidateReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let resources = if self.resources == 1 {
            "resource"
        } else {
            "resources"
        };
        writeln!(out, "valid: {} {resources}", self.resources)
    }
}

/// Writes the JSON Schema of all kinds.
pub(crate) fn write_schema(output: &mut Output<'_>) -> Result<(), Failure> {
    let schema = serde_json::to_string_pretty(&proxy_config::json_schema())
        .map_err(|error| Failure::failed(format!("the schema has no JSON form: {error}")))?;
    output.raw(format!("{schema}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    #[test]
    fn what_is_valid_is_counted() {
        let report = ValidateReport {
            valid: true,
            resources: 2,
        };
        assert_eq!(
            rendered(&report),
            (
                "valid: 2 resources\n".into(),
                json!({"valid": true, "resources": 2})
            )
        );
    }

    #[test]
    fn the_schema_knows_every_kind() {
        let mut out = Vec::new();
        let mut output = Output::new(Format::Text, &mut out, io::sink());
        write_schema(&mut output).unwrap();
        drop(output);
        let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let text = schema.to_string();
        for kind in proxy_config::Kind::ALL {
            assert!(text.contains(kind.as_str()), "{kind}");
        }
    }
}
