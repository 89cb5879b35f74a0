//! `skein keygen`: a new gossip key.
//!
//! Owns how the key file is made: 32 random bytes in base64, readable by its owner only. Never
//! overwrites one.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::escape;
use crate::failure::Failure;
use crate::output::Output;

/// The length of a gossip key.
const KEY_BYTES: usize = 32;

/// The options of `skein keygen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Keygen {
    /// Write the key to a new FILE that only its owner can read, instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Keygen {
    /// Makes a key and writes it where it was asked for.
    pub(crate) fn run(&self, output: &mut Output<'_>) -> Result<(), Failure> {
        let line = new_key()?;
        match &self.output {
            None => output.raw(line.as_bytes()),
            Some(file)
                if ["json", "text"]
                    .iter()
                    .any(|format| file == Path::new(format)) =>
            {
                let name = file.display();
                Err(Failure::usage(format!(
                    "keygen has no output formats: -o names the file; \
                     for a file called `{name}` write ./{name}"
                )))
            }
            Some(file) => write_key(file, &line),
        }
    }
}

/// A new key, as a line of a key file.
fn new_key() -> Result<String, Failure> {
    let mut key = [0; KEY_BYTES];
    SysRng
        .try_fill_bytes(&mut key)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    Ok(escape::base64(&key) + "\n")
}

/// Makes a key and writes it to a new file that only its owner can read.
pub(crate) fn write_new_key(path: &Path) -> Result<(), Failure> {
    write_key(path, &new_key()?)
}

fn write_key(path: &Path, line: &str) -> Result<(), Failure> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "; a key that is in use must not be lost: choose another name"
            }
            _ => "",
        };
        Failure::failed(format!(
            "cannot write the key to {}: {error}{remedy}",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use base64::Engine;

    use super::*;
    use crate::failure::Kind;
    use crate::output::Format;

    fn keygen(file: Option<&Path>) -> (Result<(), Failure>, Vec<u8>) {
        let mut out = Vec::new();
        let mut output = Output::new(Format::Text, &mut out, std::io::sink());
        let result = Keygen {
            output: file.map(Path::to_owned),
        }
        .run(&mut output);
        drop(output);
        (result, out)
    }

    fn decoded(line: &[u8]) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD
            .decode(line.trim_ascii_end())
            .unwrap()
    }

    #[test]
    fn keys_are_32_bytes_and_never_the_same() {
        let (first, second) = (keygen(None).1, keygen(None).1);
        assert_eq!(decoded(&first).len(), KEY_BYTES);
        assert_ne!(first, second);
    }

    #[test]
    fn a_key_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gossip.key");
        assert_eq!(keygen(Some(&path)), (Ok(()), Vec::new()));
        let written = std::fs::read(&path).unwrap();
        assert_eq!(decoded(&written).len(), KEY_BYTES);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let again = keygen(Some(&path)).0.unwrap_err();
        assert_eq!(again.kind, Kind::Failed);
        assert!(again.message.contains("gossip.key"), "{}", again.message);
        assert_eq!(std::fs::read(&path).unwrap(), written);
    }

    #[test]
    fn a_format_in_place_of_a_file_is_a_usage_error() {
        assert_eq!(
            keygen(Some(Path::new("json"))).0.unwrap_err().kind,
            Kind::Usage
        );
    }
}
