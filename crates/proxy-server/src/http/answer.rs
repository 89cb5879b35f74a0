//! The answers that Skein makes itself.
//!
//! Owns their statuses and reasons. 503 means that the request was surely not sent, 502 that it was
//! and that its fate is unknown, 504 that time ran out. Never tells an address or another internal:
//! the reason is for the client, the rest is in the access log.

use http::{Method, StatusCode};
use proxy_config::compiled::HeaderChange;
use tls::BreachClass;

use super::fields::{Fields, changed};
use super::headers::ConnectionOption;
use crate::flags::Flag;
use crate::http1::HeadFault;
use crate::refusal::Refusal;

/// Why Skein answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The request's head is refused.
    Head(HeadFault),
    /// The request's body is refused.
    Body(&'static str),
    /// CONNECT is not served.
    ConnectOff,
    /// The route does not let clients go over to that protocol.
    UpgradeOff,
    /// The upstream does not go over to it.
    UpgradeDeclined,
    /// The request did not arrive in time.
    RequestTimeout,
    /// No virtual host or route matches.
    NoRoute,
    /// The route's cluster is not there.
    NoCluster,
    /// The route makes no path of the one that was asked for.
    Rewrite,
    /// No endpoint can be used.
    NoHealthyUpstream,
    /// The cluster's limits are reached.
    Overflow,
    /// No connection could be made.
    ConnectFailed,
    /// A connection was made, but no TLS came of it.
    ConnectTls(Option<BreachClass>),
    /// No connection could be made in time.
    ConnectTimedOut,
    /// The upstream refused the request, and surely did nothing about it.
    UpstreamRefused,
    /// The upstream ended the connection before it answered.
    Terminated,
    /// The upstream's answer is no HTTP.
    UpstreamProtocol,
    /// The upstream did not answer in time.
    ResponseTimeout,
}

/// What is said about a reason.
struct Wording {
    status: StatusCode,
    flag: Flag,
    /// An error type of RFC 9209.
    error: &'static str,
    details: &'static str,
}

impl Reason {
    pub(super) fn status(self) -> StatusCode {
        self.wording().status
    }

    pub(super) fn flag(self) -> Flag {
        self.wording().flag
    }

    /// What was wrong with the request itself, if anything was.
    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Head(fault) => Some(Refusal::of_head(fault)),
            Self::Body(_) => Some(Refusal::MalformedBody),
            Self::ConnectOff => Some(Refusal::Connect),
            Self::RequestTimeout => Some(Refusal::Timeout),
            _ => None,
        }
    }

    /// One phrase for people.
    pub(super) fn details(self) -> &'static str {
        self.wording().details
    }

    fn wording(self) -> Wording {
        let (status, flag, error, details) = match self {
            Self::Head(fault) => return Wording::of_refusal(fault),
            Self::ConnectTls(class) => return Wording::of_tls(class),
            Self::Body(details) => return Wording::of_refusal(HeadFault::Malformed(details)),
            Self::ConnectOff => (
                StatusCode::METHOD_NOT_ALLOWED,
                Flag::DownstreamProtocolError,
                "http_request_error",
                "CONNECT is not served",
            ),
            Self::UpgradeOff => (
                StatusCode::FORBIDDEN,
                Flag::DownstreamProtocolError,
                "http_upgrade_failed",
                "this route does not take such upgrades",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                Flag::RequestTimeout,
                "http_request_error",
                "the request did not arrive in time",
            ),
            Self::NoRoute => (
                StatusCode::NOT_FOUND,
                Flag::NoRoute,
                "destination_not_found",
                "no route matches",
            ),
            Self::Rewrite => (
                StatusCode::INTERNAL_SERVER_ERROR,
                Flag::NoRoute,
                "proxy_configuration_error",
                "the route makes no valid path of this one",
            ),
            _ => return self.wording_upstream(),
        };
        Wording {
            status,
            flag,
            error,
            details,
        }
    }

    /// Those that the upstream is to blame for.
    fn wording_upstream(self) -> Wording {
        use Flag as F;
        use StatusCode as S;
        let (status, flag, error, details) = match self {
            Self::NoCluster => (
                S::SERVICE_UNAVAILABLE,
                F::NoCluster,
                "destination_not_found",
                "the route's cluster is not known",
            ),
            Self::Overflow => (
                S::SERVICE_UNAVAILABLE,
                F::UpstreamOverflow,
                "connection_limit_reached",
                "too many requests are waiting for the upstream",
            ),
            Self::ConnectFailed => (
                S::SERVICE_UNAVAILABLE,
                F::UpstreamConnectFailure,
                "connection_refused",
                "the upstream cannot be reached",
            ),
            Self::ConnectTimedOut => (
                S::SERVICE_UNAVAILABLE,
                F::UpstreamConnectFailure,
                "connection_timeout",
                "the upstream did not accept a connection in time",
            ),
            Self::UpstreamRefused => (
                S::SERVICE_UNAVAILABLE,
                F::UpstreamTermination,
                "connection_terminated",
                "the upstream refused the request",
            ),
            Self::Terminated => (
                S::BAD_GATEWAY,
                F::UpstreamTermination,
                "connection_terminated",
                "the upstream ended the connection before it answered",
            ),
            Self::UpstreamProtocol => (
                S::BAD_GATEWAY,
                F::UpstreamProtocolError,
                "http_protocol_error",
                "the upstream's answer is malformed",
            ),
            Self::UpgradeDeclined => (
                S::BAD_GATEWAY,
                F::UpstreamProtocolError,
                "http_upgrade_failed",
                "the upstream does not go over to that protocol",
            ),
            Self::ResponseTimeout => (
                S::GATEWAY_TIMEOUT,
                F::UpstreamTimeout,
                "http_response_timeout",
                "the upstream did not answer in time",
            ),
            _ => (
                S::SERVICE_UNAVAILABLE,
                F::NoHealthyUpstream,
                "destination_unavailable",
                "no healthy upstream",
            ),
        };
        Wording {
            status,
            flag,
            error,
            details,
        }
    }
}

impl Wording {
    /// For a TLS connection to an upstream that did not come about.
    fn of_tls(class: Option<BreachClass>) -> Self {
        use BreachClass as Class;
        let (error, details) = match class {
            Some(Class::CertificateExpired) => (
                "tls_certificate_error",
                "the upstream's certificate is not valid now",
            ),
            Some(Class::CertificateUntrusted) => (
                "tls_certificate_error",
                "the upstream's certificate is of no trusted CA",
            ),
            Some(Class::CertificateName) => (
                "tls_certificate_error",
                "the upstream's certificate has another name",
            ),
            Some(Class::CertificateBad | Class::NoCertificate) => (
                "tls_certificate_error",
                "the upstream's certificate is not accepted",
            ),
            Some(Class::Alert) => (
                "tls_alert_received",
                "the upstream refused the TLS connection",
            ),
            Some(Class::Alpn) => (
                "tls_protocol_error",
                "the upstream does not speak the HTTP that it should",
            ),
            _ => (
                "tls_protocol_error",
                "no TLS connection to the upstream came about",
            ),
        };
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            flag: Flag::UpstreamConnectFailure,
            error,
            details,
        }
    }

    /// What is said to a client whose request is refused.
    fn of_refusal(fault: HeadFault) -> Self {
        let (status, details) = match fault {
            HeadFault::Malformed(details) => (StatusCode::BAD_REQUEST, details),
            HeadFault::TooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the header section is too large",
            ),
            HeadFault::TargetTooLong => {
                (StatusCode::URI_TOO_LONG, "the request target is too long")
            }
            HeadFault::Version => (
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "the HTTP version is not supported on this port",
            ),
            HeadFault::TransferCoding => (
                StatusCode::NOT_IMPLEMENTED,
                "only the transfer coding chunked is supported",
            ),
        };
        Self {
            status,
            flag: Flag::DownstreamProtocolError,
            error: "http_request_error",
            details,
        }
    }
}

/// Writes the whole answer for a request of this method, for HTTP/1.
pub(super) fn write_answer(
    out: &mut Vec<u8>,
    reason: Reason,
    method: &Method,
    request_id: &str,
    (connection, date): (ConnectionOption, &str),
    changes: &[HeaderChange],
) {
    let status = reason.status();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let body = changed(out, changes, |fields| {
        answer_fields(fields, reason, request_id, date)
    });
    out.extend_from_slice(match connection {
        ConnectionOption::Kept => b"\r\n",
        ConnectionOption::KeptOld => b"connection: keep-alive\r\n\r\n",
        ConnectionOption::Close => b"connection: close\r\n\r\n",
    });
    if method != Method::HEAD {
        out.extend_from_slice(body.as_bytes());
    }
}

/// Writes an answer's fields; its body.
pub(super) fn answer_fields(
    out: &mut (impl Fields + ?Sized),
    reason: Reason,
    request_id: &str,
    date: &str,
) -> String {
    let Wording {
        status,
        error,
        details,
        ..
    } = reason.wording();
    let body = format!("{details}\n");
    let proxy_status = format!("skein; error={error}; details=\"{details}\"");
    out.add("content-type", b"text/plain; charset=utf-8");
    out.add("content-length", body.len().to_string().as_bytes());
    out.add("proxy-status", proxy_status.as_bytes());
    out.add("x-request-id", request_id.as_bytes());
    out.add("date", date.as_bytes());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        out.add("allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_reason_and_is_whole() {
        let write = |method| {
            let mut out = Vec::new();
            let end = (ConnectionOption::Close, "now");
            write_answer(&mut out, Reason::NoHealthyUpstream, &method, "id", end, &[]);
            String::from_utf8(out).unwrap()
        };
        let answer = write(Method::GET);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(head.contains(
            "proxy-status: skein; error=destination_unavailable; details=\"no healthy upstream\""
        ));
        assert!(head.contains("x-request-id: id") && head.ends_with("connection: close"));
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        assert!(write(Method::HEAD).ends_with("\r\n\r\n"));
    }
}
