//! The product's binary, run as a user runs it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a command did.
pub(crate) struct Ran {
    /// Its exit code.
    pub(crate) code: i32,
    /// What it said on stdout.
    pub(crate) stdout: String,
    /// What it said on stderr.
    pub(crate) stderr: String,
}

impl Ran {
    /// Its stdout as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|fault| panic!("{fault} in `{}`, stderr: {}", self.stdout, self.stderr))
    }

    /// Itself, if it exited with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Itself, if it exited with `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
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
pub(crate) fn command() -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_skein")))
}

/// The same for another build of it.
pub(crate) fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_remove("SKEIN_ENDPOINTS")
        .env_remove("SKEIN_CACERT")
        .env_remove("SKEIN_CERT")
        .env_remove("SKEIN_KEY")
        .env_remove("SKEIN_LOG")
        .env_remove("SKEIN_USER")
        .env_remove("SKEIN_PASSWORD")
        .env_remove("SKEIN_PASSWORD_FILE")
        .stdin(Stdio::null());
    command
}

/// Runs `skein` with these arguments to its end.
pub(crate) fn skein(arguments: &[&str]) -> Ran {
    command()
        .args(arguments)
        .output()
        .expect("skein runs")
        .into()
}

/// Runs `skein` with `input` on its standard input.
pub(crate) fn skein_with_input(arguments: &[&str], input: &[u8]) -> Ran {
    let child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("skein runs");
    let mut pipe = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writing = std::thread::spawn(move || {
        // A command that refuses its input early closes the pipe.
        let _ = pipe.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writing.join().expect("written");
    output.into()
}
