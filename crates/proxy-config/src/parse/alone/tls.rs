//! The rules for TLS.

use super::Findings;
use crate::resource::{ClusterTlsSpec, ListenerProtocol, ListenerTlsSpec};
use crate::words::is_host_name;

/// So many certificates can be at one listener, and so many names may be asked for.
const CERTIFICATES_MAX: usize = 1024;
const NAMES_MAX: usize = 64;

pub(super) fn check_listener(
    spec: &ListenerTlsSpec,
    protocol: ListenerProtocol,
    findings: &mut Findings,
) {
    let count = spec.certificates.len();
    findings.refuse_if(count == 0, "tls.certificates", || {
        "there is no certificate; give at least one".into()
    });
    findings.refuse_if(count > CERTIFICATES_MAX, "tls.certificates", || {
        format!("there are more than {CERTIFICATES_MAX}; use several listeners, or wildcards")
    });
    let chains = spec.certificates.iter().map(|one| &one.certificate_chain);
    findings.refuse_repeats("tls.certificates", chains);
    findings.refuse_zero_time("tls.handshake_timeout", spec.handshake_timeout);
    if let Some(client) = &spec.client_certificate {
        let path = "tls.client_certificate.subject_alt_names";
        refuse_many(path, client.subject_alt_names.len(), findings);
    }
    let alpn = spec.alpn.as_deref().unwrap_or_default();
    findings.refuse_repeats("tls.alpn", alpn);
    if protocol == ListenerProtocol::Http {
        for (index, name) in alpn.iter().enumerate() {
            let is_http = matches!(name.as_str(), "h2" | "http/1.1");
            findings.refuse_if(!is_http, format!("tls.alpn[{index}]"), || {
                format!(
                    "an http listener does not speak `{name}`; leave `alpn` out, or give of h2 and http/1.1"
                )
            });
        }
    }
}

pub(super) fn check_cluster(spec: &ClusterTlsSpec, findings: &mut Findings) {
    let bad = spec.sni.as_ref().filter(|name| !is_host_name(name));
    findings.refuse_if(bad.is_some(), "tls.sni", || {
        "not the name of a host; give one such as api.example.com, or leave it out to check for the \
         endpoint's address"
            .into()
    });
    refuse_many(
        "tls.subject_alt_names",
        spec.subject_alt_names.len(),
        findings,
    );
    findings.refuse_repeats("tls.alpn", spec.alpn.as_deref().unwrap_or_default());
}

fn refuse_many(path: &str, count: usize, findings: &mut Findings) {
    findings.refuse_if(count > NAMES_MAX, path, || {
        format!("there are more than {NAMES_MAX} names; a URI may end with `*`")
    });
}
