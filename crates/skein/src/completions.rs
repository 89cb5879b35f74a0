//! `skein completions`: a script that makes a shell complete skein's commands.
//!
//! Owns nothing but the command; the scripts are made by `clap_complete`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output::Output;

/// The options of `skein completions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Writes the script.
    pub(crate) fn run(&self, output: &mut Output<'_>) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "skein", &mut script);
        output.raw(&script)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::output::Format;

    #[test]
    fn every_shell_gets_a_script_that_knows_our_commands() {
        for shell in Shell::value_variants() {
            let mut out = Vec::new();
            let mut output = Output::new(Format::Text, &mut out, std::io::sink());
            Completions { shell: *shell }.run(&mut output).unwrap();
            drop(output);
            let script = String::from_utf8(out).unwrap();
            assert!(script.contains("keys-only"), "{shell}");
        }
    }
}
