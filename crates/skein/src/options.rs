//! The options that every command which talks to a mesh has.
//!
//! Owns their names, defaults and text forms, the files of TLS, and where a password comes from.
//! Never connects.

use std::path::{Path, PathBuf};
use std::time::Duration;

use store_client::Credentials;
use tls::{Dialer, Files, Named};

use crate::failure::Failure;
use crate::output::Format;

/// How to reach the mesh, and how to answer.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Options {
    /// Client addresses of some nodes of the mesh; the next one is asked when one is down.
    /// `https://HOST:PORT` asks for TLS, as --cacert does for all that do not say `http://`
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "SKEIN_ENDPOINTS",
        hide_env_values = true,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379"
    )]
    pub(crate) endpoints: Vec<String>,

    /// CA that signed the nodes' certificates (PEM) [default for https://: those of this system]
    #[arg(
        long,
        id = "tls_cacert",
        value_name = "FILE",
        env = "SKEIN_CACERT",
        hide_env_values = true
    )]
    pub(crate) cacert: Option<PathBuf>,

    /// Certificate that this command shows to the nodes (PEM); with --key
    #[arg(
        long,
        id = "tls_cert",
        value_name = "FILE",
        env = "SKEIN_CERT",
        hide_env_values = true,
        requires = "tls_key"
    )]
    pub(crate) cert: Option<PathBuf>,

    /// Private key of that certificate (PEM); with --cert
    #[arg(
        long,
        id = "tls_key",
        value_name = "FILE",
        env = "SKEIN_KEY",
        hide_env_values = true,
        requires = "tls_cert"
    )]
    pub(crate) key: Option<PathBuf>,

    /// Namespace of config resources that do not say theirs [default: `default`; for `config list`
    /// and `config export`: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// How to write results and errors; the JSON fields are stable (docs/cli.md)
    #[arg(
        short,
        long,
        value_name = "text|json",
        hide_possible_values = true,
        default_value = "text"
    )]
    pub(crate) output: Format,

    /// How long to wait for an answer, over all endpoints
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// Who calls, where auth is enabled; with `:PASSWORD` others on this machine can see the password
    #[arg(
        long,
        value_name = "NAME[:PASSWORD]",
        env = "SKEIN_USER",
        hide_env_values = true
    )]
    pub(crate) user: Option<String>,

    /// The password of --user: rather from the environment, or by --password-file
    #[arg(
        long,
        value_name = "TEXT",
        env = "SKEIN_PASSWORD",
        hide_env_values = true
    )]
    pub(crate) password: Option<String>,

    /// A file whose first line is the password of --user
    #[arg(
        long,
        value_name = "FILE",
        env = "SKEIN_PASSWORD_FILE",
        hide_env_values = true
    )]
    pub(crate) password_file: Option<PathBuf>,
}

impl Options {
    /// Who calls, if anybody is named.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        let Some(named) = self.user.as_deref().filter(|named| !named.is_empty()) else {
            return Ok(None);
        };
        let (user, password) = match (named.split_once(':'), &self.password, &self.password_file) {
            (Some((user, password)), _, _) => (user, password.to_owned()),
            (None, Some(password), _) => (named, password.clone()),
            (None, None, Some(file)) => (named, password_in(file)?),
            (None, None, None) => {
                return Err(Failure::usage(format!(
                    "the password of `{named}` is missing; set SKEIN_PASSWORD, or name a file with \
                     --password-file"
                )));
            }
        };
        let user = user.to_owned();
        Ok(Some(Credentials { user, password }))
    }
}

/// The first line of a file, or of standard input (`-`).
pub(crate) fn password_in(file: &Path) -> Result<String, Failure> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| {
        let file = file.display();
        Failure::failed(format!("cannot read the password in {file}: {error}"))
    })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::failed(format!(
            "{} has no password in its first line; write it there",
            file.display()
        ))),
    }
}

impl Options {
    /// How TLS is spoken, if one of its settings or an endpoint asks for it.
    pub(crate) fn tls(&self) -> Result<Option<Dialer>, Failure> {
        let is_https = |endpoint: &String| endpoint.trim().starts_with("https://");
        let is_asked = self.cacert.is_some() || self.cert.is_some();
        if !is_asked && !self.endpoints.iter().any(is_https) {
            return Ok(None);
        }
        let named = |setting, path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            Some(Named::new(setting, path))
        };
        let files = Files {
            own: named("--cert", &self.cert).zip(named("--key", &self.key)),
            trusted_ca: named("--cacert", &self.cacert),
        };
        let dialer = Dialer::tls(files);
        Ok(Some(
            dialer.map_err(|fault| Failure::failed(fault.to_string()))?,
        ))
    }
}

/// Reads `500ms`, `2s`, `1m` or `1h`: a whole number above 0 and its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_ms))
    {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("expected a number above 0 with a unit: 500ms, 2s, 1m or 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn credentials(arguments: &[&str]) -> Result<Option<Credentials>, Failure> {
        let line = [&["skein"], arguments].concat();
        let line = <Line as clap::Parser>::try_parse_from(line).expect("parses");
        line.options.credentials()
    }

    #[test]
    fn a_password_comes_with_the_name_or_beside_it_or_from_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("password");
        std::fs::write(&file, "a:b c\nmore\n").expect("written");
        let name = file.to_str().expect("text");
        let wanted = Credentials {
            user: "ann".to_owned(),
            password: "a:b c".to_owned(),
        };
        for given in [
            &["--user", "ann:a:b c"][..],
            &["--user", "ann", "--password", "a:b c"],
            &["--user", "ann", "--password-file", name],
        ] {
            assert_eq!(
                credentials(given).as_ref(),
                Ok(&Some(wanted.clone())),
                "{given:?}"
            );
        }
        assert_eq!(credentials(&[]), Ok(None));
        let missing = credentials(&["--user", "ann"]).expect_err("no password");
        assert!(missing.message.contains("SKEIN_PASSWORD"), "{missing}");
        std::fs::write(&file, "").expect("written");
        let empty = credentials(&["--user", "ann", "--password-file", name]);
        assert!(empty.expect_err("empty").message.contains("first line"));
    }

    #[test]
    fn durations_need_a_unit_and_a_value() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in [
            "",
            "5",
            "0s",
            "-1s",
            "1 s",
            "s",
            "1.5s",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
