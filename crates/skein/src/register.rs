//! `skein register`: an endpoint is part of a service for as long as this command runs.
//!
//! Owns the life of one registration: a lease, a key bound to it, both kept alive, and gone at the
//! end. Never looks whether the endpoint works: probes do.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use proxy_config::check_registration;
use serde::Serialize;
use store_api::etcdserverpb::{LeaseGrantRequest, PutRequest};
use store_client::ClientError;

use crate::failure::{Failure, FaultLine, Kind};
use crate::options::duration;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};

/// The options of `skein register`.
#[derive(Debug, clap::Args)]
pub(crate) struct Register {
    /// The service, as clusters name it
    service: String,
    /// Where the endpoint listens
    #[arg(value_name = "IP:PORT")]
    address: String,
    /// What tells it from others of the service [default: its address]
    #[arg(long)]
    id: Option<String>,
    /// Its share, relative to the others'
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// The zone that it is in
    #[arg(long)]
    zone: Option<String>,
    /// 0 is the first choice
    #[arg(long, default_value_t = 0)]
    priority: u32,
    /// What subsets know it by; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The name of its host
    #[arg(long)]
    hostname: Option<String>,
    /// It is gone so long after this command was killed, or cut off, at the latest
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = ttl)]
    ttl: Duration,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as version=v2".to_owned()),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl < Duration::from_secs(1) || ttl.subsec_nanos() > 0 {
        return Err("expected whole seconds: 10s, 1m".to_owned());
    }
    Ok(ttl)
}

/// The value of a registration.
#[derive(Debug, Serialize)]
struct Value<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "is_one")]
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    priority: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
}

// Serde calls it with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(number: &u32) -> bool {
    *number == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Register {
    /// The key and its value, as a mesh takes them.
    fn written(&self, namespace: Option<&str>) -> Result<(String, String), Failure> {
        let namespace = namespace.unwrap_or(proxy_config::DEFAULT_NAMESPACE);
        let id = self.id.as_deref().unwrap_or(&self.address);
        let key = format!(
            "{}{namespace}/{}/{id}",
            model::ENDPOINT_PREFIX,
            self.service
        );
        let labels = self.labels.iter();
        let value = Value {
            address: &self.address,
            weight: self.weight,
            zone: self.zone.as_deref(),
            priority: self.priority,
            labels: labels.map(|(name, value)| (&**name, &**value)).collect(),
            hostname: self.hostname.as_deref(),
        };
        let value = serde_json::to_string(&value)
            .map_err(|error| Failure::failed(format!("cannot write the value: {error}")))?;
        match check_registration(key.as_bytes(), value.as_bytes()) {
            None => Ok((key, value)),
            Some(fault) => Err(Failure {
                faults: vec![FaultLine::from(&fault)],
                ..Failure::new(Kind::Refused, "this is no endpoint; nothing was changed")
            }),
        }
    }
}

impl MeshCommand for Register {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        let (key, value) = self.written(session.namespace())?;
        let store = session.store();
        let mut told_to_stop = pin!(lifecycle::terminate_signal());
        loop {
            let request = LeaseGrantRequest {
                ttl: i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX),
                id: 0,
            };
            let lease = store.lease_grant(request).await?;
            let request = PutRequest {
                key: key.clone().into(),
                value: value.clone().into(),
                lease: lease.id,
                ..Default::default()
            };
            let written = store.put(request).await;
            if let Err(error) = written {
                // It ends by itself, if this does not reach the mesh either.
                let _ = store.lease_revoke(lease.id).await;
                return Err(error.into());
            }
            output.stream(&Registered {
                key: &key,
                lease: lease.id,
                ttl_seconds: lease.ttl,
            })?;
            let lost = tokio::select! {
                lost = store.keep_lease(lease.id) => lost,
                signal = &mut told_to_stop => {
                    let signal = signal
                        .map_err(|error| Failure::failed(format!("cannot hear signals: {error}")))?;
                    // With the lease the key goes, at once.
                    store.lease_revoke(lease.id).await?;
                    output.note(&format!("{signal}: no longer registered"));
                    return Ok(());
                }
            };
            match lost {
                // This process stood still for too long, or somebody ended it.
                ClientError::NotFound { .. } => {
                    output.note("the lease was lost; it registers anew")
                }
                other => return Err(other.into()),
            }
        }
    }
}

/// What `register` answers, each time that it registered.
#[derive(Debug, Serialize)]
struct Registered<'a> {
    key: &'a str,
    lease: i64,
    ttl_seconds: i64,
}

impl Report for Registered<'_> {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "registered as {}", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::rendered;

    fn register(service: &str, address: &str) -> Register {
        Register {
            service: service.to_owned(),
            address: address.to_owned(),
            id: None,
            weight: 1,
            zone: None,
            priority: 0,
            labels: Vec::new(),
            hostname: None,
            ttl: Duration::from_secs(10),
        }
    }

    #[test]
    fn the_key_names_the_service_and_the_address_unless_there_is_an_id() {
        let plain = register("web", "10.0.0.7:8000");
        let (key, value) = plain.written(None).unwrap();
        assert_eq!(key, "/skein/endpoints/default/web/10.0.0.7:8000");
        assert_eq!(value, r#"{"address":"10.0.0.7:8000"}"#);
        let full = Register {
            id: Some("web-1".to_owned()),
            weight: 2,
            zone: Some("b".to_owned()),
            priority: 1,
            labels: vec![("version".to_owned(), "v2".to_owned())],
            hostname: Some("web-1.test".to_owned()),
            ..plain
        };
        let (key, value) = full.written(Some("team-a")).unwrap();
        assert_eq!(key, "/skein/endpoints/team-a/web/web-1");
        let expected = r#"{"address":"10.0.0.7:8000","weight":2,"zone":"b","priority":1,"labels":{"version":"v2"},"hostname":"web-1.test"}"#;
        assert_eq!(value, expected);
    }

    #[test]
    fn what_is_no_endpoint_is_refused_before_anybody_is_asked() {
        for bad in [
            register("web", "nowhere"),
            register("a/b", "10.0.0.7:8000"),
            Register {
                weight: 0,
                ..register("web", "10.0.0.7:8000")
            },
            Register {
                id: Some("a b".to_owned()),
                ..register("web", "10.0.0.7:8000")
            },
        ] {
            let refused = bad.written(None).unwrap_err();
            assert_eq!((refused.kind, refused.faults.len()), (Kind::Refused, 1));
        }
    }

    #[test]
    fn options_are_read_strictly() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("a").is_err() && label("=b").is_err());
        assert_eq!(ttl("1m"), Ok(Duration::from_secs(60)));
        assert!(ttl("500ms").is_err() && ttl("1500ms").is_err());
    }

    #[test]
    fn it_tells_key_and_lease() {
        let (text, json) = rendered(&Registered {
            key: "k",
            lease: 7,
            ttl_seconds: 10,
        });
        assert_eq!(text, "registered as k\n");
        let expected = serde_json::json!({"key": "k", "lease": 7, "ttl_seconds": 10});
        assert_eq!(json, expected);
    }
}
