//! What is wrong with a connection that this end opened, in words that help.
//!
//! Owns the translation of TLS faults. Never hides one that it does not know: that is told as it
//! came.

use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// How the words begin when the other end turned this end's certificate away.
const REFUSED: &str = "not let in: ";

/// Whether a reason says that the other end turned this end away in the handshake, so that nothing
/// that was sent was ever read.
pub fn was_refused(reason: &str) -> bool {
    reason.starts_with(REFUSED)
}

/// One connection, and the settings that its certificates come from.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// `HOST:PORT`.
    pub(crate) authority: String,
    pub(crate) ca: &'static str,
    pub(crate) own: &'static str,
}

impl Call {
    /// The fault in words; as it is if it has none to do with TLS.
    pub(crate) fn explain(&self, fault: io::Error) -> io::Error {
        let Some(known) = fault.get_ref().and_then(|inner| inner.downcast_ref()) else {
            return match fault.kind() {
                io::ErrorKind::UnexpectedEof => {
                    let text =
                        "the connection was closed in the TLS handshake; does the port speak TLS?";
                    io::Error::new(fault.kind(), text)
                }
                _ => fault,
            };
        };
        io::Error::new(fault.kind(), self.words(known))
    }

    /// What a plain connection says whose other end answered as TLS does.
    pub(crate) fn speaks_tls(&self) -> io::Error {
        let Self { authority, .. } = self;
        let text = format!("the port speaks TLS: use https://{authority}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    fn words(&self, fault: &rustls::Error) -> String {
        let Self { authority, ca, own } = self;
        match fault {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                format!("the port speaks plain text, not TLS: use http://{authority}")
            }
            rustls::Error::InvalidCertificate(why) => self.distrust(why),
            rustls::Error::AlertReceived(alert) => match alert {
                AlertDescription::CertificateRequired => {
                    format!("{REFUSED}the port asks for a certificate of this end; give {own}")
                }
                AlertDescription::CertificateExpired => {
                    format!(
                        "{REFUSED}this end's certificate has expired, says the other; renew {own}"
                    )
                }
                AlertDescription::UnknownCA => format!(
                    "{REFUSED}this end's certificate is of a CA that the port does not trust; give \
                     another one with {own}"
                ),
                AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied => format!(
                    "{REFUSED}the port does not accept this end's certificate, or asks for one \
                     ({alert:?}); give one of a CA that it trusts with {own}"
                ),
                _ => format!(
                    "the other end ended the TLS handshake ({alert:?}); see its log, and {ca}"
                ),
            },
            fault => fault.to_string(),
        }
    }

    fn distrust(&self, why: &CertificateError) -> String {
        use CertificateError as Why;
        let Self { authority, ca, .. } = self;
        match why {
            Why::UnknownIssuer => format!(
                "the certificate of {authority} is of a CA that is not trusted here; give its CA with {ca}"
            ),
            Why::Expired | Why::ExpiredContext { .. } => {
                format!("the certificate of {authority} has expired; renew it there")
            }
            Why::NotValidForNameContext { presented, .. } => format!(
                "the certificate there is not valid for {authority}, only for {}; call it by such a \
                 name, or make one with this name",
                presented.join(", ")
            ),
            why => format!("the certificate of {authority} is not accepted: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(fault: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> String {
        let call = Call {
            authority: "a:1".to_owned(),
            ca: "--cacert",
            own: "--cert and --key",
        };
        call.explain(io::Error::new(io::ErrorKind::InvalidData, fault))
            .to_string()
    }

    #[test]
    fn only_the_certificates_turned_away_by_the_other_end_count_as_refused() {
        let alert = |alert| explained(rustls::Error::AlertReceived(alert));
        for refused in [
            AlertDescription::CertificateRequired,
            AlertDescription::BadCertificate,
            AlertDescription::UnknownCA,
            AlertDescription::CertificateExpired,
        ] {
            let text = alert(refused);
            assert!(
                was_refused(&text) && text.contains("--cert and --key"),
                "{text}"
            );
        }
        assert!(!was_refused(&alert(AlertDescription::InternalError)));
        assert!(!was_refused(&explained("connection reset")));
        let issuer = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let text = explained(issuer);
        assert!(!was_refused(&text) && text.contains("--cacert"), "{text}");
    }

    #[test]
    fn a_plain_port_is_called_plain() {
        let fault = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(explained(fault).contains("use http://a:1"));
    }
}
