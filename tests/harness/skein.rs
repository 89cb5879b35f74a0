//! The product's binary, run as a user runs it.

use std::process::{Command, Output, Stdio};

/// What a command did.
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it said on stdout.
    pub stdout: String,
    /// What it said on stderr.
    pub stderr: String,
}

impl Ran {
    /// Its stdout as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|fault| panic!("{fault} in `{}`, stderr: {}", self.stdout, self.stderr))
    }

    /// Itself, if it exited with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Itself, if it exited with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The binary, ready to run without anything of the caller's environment that it reads.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
    command.env_remove("SKEIN_ENDPOINTS").env_remove("SKEIN_LOG").stdin(Stdio::null());
    command
}

/// Runs `skein` with these arguments to its end.
pub fn skein(arguments: &[&str]) -> Ran {
    command().args(arguments).output().expect("skein runs").into()
}
