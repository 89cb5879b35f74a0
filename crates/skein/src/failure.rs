//! Why a command did not do its work, in the terms that a script needs.
//!
//! Owns the exit codes and the words of `error.kind` (docs/cli.md). Never prints.

use std::io;

use control_api::REFUSAL_PREFIX;
use proxy_config::Fault;
use serde::Serialize;
use store_api::errors;
use store_client::ClientError;
use tonic::Code;

/// The reasons that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Nothing more specific: the answer, or a file, was not what is needed.
    Failed,
    /// No endpoint answered.
    Unreachable,
    /// A write may or may not have happened: the connection was lost before the answer.
    OutcomeUnknown,
    /// The config was accepted but is not in force on all live nodes (`apply --wait`).
    NotInForce,
    /// The command line is wrong.
    Usage,
    /// The config is not valid, so nothing was changed.
    Refused,
    /// What was named does not exist.
    NotFound,
    /// Whoever read our output has gone; nothing is wrong.
    OutputClosed,
}

impl Kind {
    /// The process's exit code.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed | Self::Unreachable | Self::OutcomeUnknown | Self::NotInForce => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
        }
    }
}

/// One thing that is wrong with a config.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FaultLine {
    /// Everything in one line, place and remedy included: what people read.
    pub(crate) text: String,
    /// The resource as `Kind/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource: Option<String>,
    /// The field in the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    /// The file, as it was named on the command line (`-` for standard input).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
    /// The line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// The column in the line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<usize>,
}

impl From<&Fault> for FaultLine {
    fn from(fault: &Fault) -> Self {
        let present = |part: &String| (!part.is_empty()).then(|| part.clone());
        let location = fault.location.as_ref();
        Self {
            text: fault.to_string(),
            resource: present(&fault.resource),
            path: present(&fault.path),
            message: present(&fault.message),
            remedy: present(&fault.remedy),
            file: location.map(|location| location.file.to_string()),
            line: location.map(|location| location.line),
            column: location.map(|location| location.column),
        }
    }
}

/// Why a command did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// The reason.
    pub(crate) kind: Kind,
    /// What happened and what helps; without a final full stop, and without the faults.
    pub(crate) message: String,
    /// With [`Kind::Refused`]: each thing that is wrong.
    pub(crate) faults: Vec<FaultLine>,
}

impl Failure {
    /// A failure with nothing but a message.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            faults: Vec::new(),
        }
    }

    /// A [`Kind::Failed`].
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A [`Kind::Usage`] that the parser of the command line cannot see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A [`Kind::NotFound`].
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Documents that are not valid; `faults` holds at least one.
    pub(crate) fn invalid(faults: &[Fault]) -> Self {
        Self::invalid_lines(faults.iter().map(FaultLine::from).collect())
    }

    /// As [`Self::invalid`], for what is wrong before there is any document.
    pub(crate) fn invalid_lines(faults: Vec<FaultLine>) -> Self {
        let message = "the config is not valid; nothing was sent".to_owned();
        Self {
            kind: Kind::Refused,
            message,
            faults,
        }
    }

    /// A config that the mesh refused; `faults` holds at least one.
    pub(crate) fn refused(faults: Vec<FaultLine>) -> Self {
        Self {
            kind: Kind::Refused,
            message: "config refused; nothing was changed".into(),
            faults,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Refused { message } => {
                let faults = message.strip_prefix(REFUSAL_PREFIX).unwrap_or(&message);
                let line = |text: &str| FaultLine {
                    text: text.trim().into(),
                    ..Default::default()
                };
                Self::refused(faults.lines().map(line).collect())
            }
            ClientError::NotFound { message } => Self::not_found(message),
            ClientError::OutcomeUnknown { .. } => Self::new(Kind::OutcomeUnknown, message),
            ClientError::Unavailable { .. } => Self::new(Kind::Unreachable, message),
            ClientError::BadEndpoint { .. } | ClientError::NoEndpoint => Self::usage(message),
            ClientError::Answered { code, message } => Self::failed(match code {
                Code::Unimplemented => format!(
                    "the endpoint does not know this request ({message}); \
                     is it a Skein node of the same release?"
                ),
                _ if message.is_empty() => code.description().to_owned(),
                _ => match remedy(&message) {
                    Some(remedy) => format!("{message}; {remedy}"),
                    None => message,
                },
            }),
        }
    }
}

/// What to do about an answer of etcd's that does not say it itself.
fn remedy(message: &str) -> Option<&'static str> {
    let is = |known: fn() -> tonic::Status| known().message() == message;
    if is(errors::user_empty) {
        Some("callers are asked who they are: name a user with --user or SKEIN_USER")
    } else if is(errors::permission_denied) {
        Some("see `skein user get` and `skein role get`, and ask a user with the role root")
    } else if is(errors::auth_failed) || is(errors::invalid_auth_token) {
        Some("check --user and the password")
    } else {
        None
    }
}

impl From<io::Error> for Failure {
    /// For errors of writing our own output only: those of files name the file themselves.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::OutputClosed, "output closed"),
            _ => Self::failed(format!("cannot write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            (Kind::OutputClosed, 0),
            (Kind::Failed, 1),
            (Kind::Unreachable, 1),
            (Kind::OutcomeUnknown, 1),
            (Kind::NotInForce, 1),
            (Kind::Usage, 2),
            (Kind::Refused, 3),
            (Kind::NotFound, 4),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.exit_code(), code, "{kind:?}");
        }
    }

    #[test]
    fn a_refusal_of_the_mesh_becomes_one_fault_per_line() {
        let message = "skein: config refused: Listener edge: bind: bad; good\nCluster a: x: y; z";
        let failure = Failure::from(ClientError::Refused {
            message: message.into(),
        });
        assert_eq!(failure.kind, Kind::Refused);
        let texts: Vec<_> = failure.faults.iter().map(|fault| &*fault.text).collect();
        assert_eq!(
            texts,
            ["Listener edge: bind: bad; good", "Cluster a: x: y; z"]
        );
    }

    #[test]
    fn the_errors_of_a_client_keep_their_meaning() {
        let tried = |endpoint: &str| store_client::Tried {
            endpoint: endpoint.into(),
            reason: "connection refused".into(),
        };
        let unavailable = ClientError::Unavailable {
            tried: vec![tried("a:1"), tried("b:2")],
        };
        let failure = Failure::from(unavailable);
        assert_eq!(failure.kind, Kind::Unreachable);
        assert!(failure.message.contains("a:1") && failure.message.contains("b:2"));

        let unknown = ClientError::OutcomeUnknown {
            endpoint: "a:1".into(),
            reason: "reset".into(),
        };
        assert_eq!(Failure::from(unknown).kind, Kind::OutcomeUnknown);
        let missing = ClientError::NotFound {
            message: "no such thing".into(),
        };
        assert_eq!(Failure::from(missing), Failure::not_found("no such thing"));
        let answered = |code, message: &str| {
            Failure::from(ClientError::Answered {
                code,
                message: message.into(),
            })
        };
        let empty_key = answered(Code::InvalidArgument, "etcdserver: key is not provided");
        assert_eq!(
            empty_key,
            Failure::failed("etcdserver: key is not provided")
        );
        assert!(!answered(Code::Internal, "").message.is_empty());
        assert_eq!(Failure::from(ClientError::NoEndpoint).kind, Kind::Usage);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(gone.kind.exit_code(), 0);
        let full = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.kind.exit_code(), 1);
    }
}
