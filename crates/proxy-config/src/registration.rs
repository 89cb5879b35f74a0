//! Endpoints that register themselves: keys `/skein/endpoints/<namespace>/<service>/<id>`, each with
//! an endpoint as its value, and bound to the lease of who wrote it.
//!
//! Owns the form of key and value, and the newest state of all of them, one change at a time. Never
//! gives up a service for one of its values: what cannot be read is left out, and told.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;
use model::ENDPOINT_PREFIX;
use serde::{Deserialize, Serialize};

use crate::assemble::labels;
use crate::compiled::{Endpoint, ResourceName, Source};
use crate::fault::Fault;
use crate::host::normalize_host;
use crate::set::Change;
use crate::words::{Address, Name};

/// A value has at most so many bytes: what a proxy keeps of each of thousands of endpoints.
pub const REGISTRATION_BYTES_MAX: usize = 16 * 1024;
/// An id has at most so many bytes.
const ID_BYTES_MAX: usize = 253;
/// No address has so many bytes; what is longer is not repeated in a message.
const ADDRESS_BYTES_MAX: usize = 64;
/// Envoy's.
const PRIORITY_MAX: u32 = 127;

/// An endpoint as it registered itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// It finishes what it has and wants nothing new.
    pub draining: bool,
}

/// A value's long form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    address: Address,
    #[serde(default = "one")]
    weight: u32,
    zone: Option<Name>,
    #[serde(default)]
    priority: u32,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    hostname: Option<String>,
    #[serde(default)]
    draining: bool,
}

fn one() -> u32 {
    1
}

/// Whose registration a key is: the service and the id.
fn named(key: &str) -> Result<(ResourceName, Arc<str>), String> {
    let form =
        || "no key of a registration; write /skein/endpoints/NAMESPACE/SERVICE/ID".to_owned();
    let rest = key.strip_prefix(ENDPOINT_PREFIX).ok_or_else(form)?;
    let mut parts = rest.split('/');
    let (Some(namespace), Some(service), Some(id), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(form());
    };
    let name = |text: &str| text.parse::<Name>().map_err(|fault| fault.to_string());
    let (namespace, name) = (name(namespace)?, name(service)?);
    let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
    if id.is_empty() || id.len() > ID_BYTES_MAX || !visible {
        return Err(format!(
            "{id:?} is no id; use 1 to {ID_BYTES_MAX} visible ASCII characters but `/`"
        ));
    }
    let service = ResourceName {
        namespace: namespace.shared().clone(),
        name: name.shared().clone(),
    };
    Ok((service, id.into()))
}

/// Reads the value of a registration: `ip:port`, or a JSON object.
fn read(id: &Arc<str>, value: &[u8]) -> Result<Registration, String> {
    if value.len() > REGISTRATION_BYTES_MAX {
        return Err(format!(
            "it has more than {REGISTRATION_BYTES_MAX} bytes; keep to what the endpoint is"
        ));
    }
    let text = std::str::from_utf8(value).map_err(|_| "it is no text; write UTF-8".to_owned())?;
    let text = text.trim();
    let fields = if text.starts_with('{') {
        serde_json::from_str(text).map_err(|fault| {
            format!("{fault}; write ip:port, or {{\"address\": \"ip:port\", ...}}")
        })?
    } else {
        if text.len() > ADDRESS_BYTES_MAX {
            let text = "it is neither an address nor an object; write ip:port, or {\"address\": \"ip:port\"}";
            return Err(text.to_owned());
        }
        let address = text.parse::<Address>().map_err(|fault| fault.to_string())?;
        Fields {
            address,
            weight: 1,
            zone: None,
            priority: 0,
            labels: BTreeMap::new(),
            hostname: None,
            draining: false,
        }
    };
    fields.registration(id)
}

impl Fields {
    fn of(known: &Registration) -> Self {
        let endpoint = &known.endpoint;
        let text = |text: &Arc<str>| text.to_string();
        let pairs = endpoint.labels.names().filter_map(|name| {
            let value = endpoint.labels.value(name)?;
            Some((text(name), text(value)))
        });
        Self {
            address: Address::Ip(endpoint.address),
            weight: endpoint.weight,
            // It was a name when it was read.
            zone: endpoint.zone.as_ref().and_then(|zone| zone.parse().ok()),
            priority: endpoint.priority,
            labels: pairs.collect(),
            hostname: endpoint.hostname.as_ref().map(text),
            draining: known.draining,
        }
    }

    fn registration(self, id: &Arc<str>) -> Result<Registration, String> {
        if self.weight == 0 {
            return Err("weight: it is 0; give at least 1, or `draining`".to_owned());
        }
        if self.priority > PRIORITY_MAX {
            return Err(format!(
                "priority: out of bounds; give 0 (the first choice) to {PRIORITY_MAX}"
            ));
        }
        if self.labels.keys().any(String::is_empty) {
            return Err("labels: a label has no name; give one, such as version".to_owned());
        }
        let Address::Ip(address) = self.address else {
            let text = "address: a socket is one node's own, and this is for all; give ip:port";
            return Err(text.to_owned());
        };
        let hostname = self.hostname.map(|name| match normalize_host(&name) {
            Ok(normal) => Ok(Arc::<str>::from(&*normal)),
            Err(fault) => Err(format!("hostname: {fault}; write it as web.example.com")),
        });
        Ok(Registration {
            endpoint: Endpoint {
                address,
                socket: None,
                weight: self.weight,
                zone: self.zone.map(|zone| zone.shared().clone()),
                priority: self.priority,
                labels: labels(&self.labels),
                hostname: hostname.transpose()?,
                source: Source::Registered(id.clone()),
            },
            draining: self.draining,
        })
    }
}

/// What is wrong with a key or value below `/skein/endpoints/`, if anything is: what admission asks.
pub fn check_registration(key: &[u8], value: &[u8]) -> Option<Fault> {
    let text = String::from_utf8_lossy(key);
    match named(&text) {
        Ok((service, id)) => read(&id, value)
            .err()
            .map(|text| fault(&service, &id, &text)),
        Err(text_of_fault) => Some(Fault::new(&*text, "key", &text_of_fault)),
    }
}

fn fault(service: &ResourceName, id: &str, text: &str) -> Fault {
    Fault::new(format!("endpoint {service}/{id}"), "", text)
}

/// The newest value under a key.
#[derive(Debug, Clone)]
struct Entry {
    mod_revision: i64,
    content: Result<Arc<Registration>, Fault>,
}

/// All registrations of a store at one moment. Cloning shares everything.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    services: OrdMap<ResourceName, OrdMap<Arc<str>, Entry>>,
    /// Keys that are none of a registration.
    strays: OrdMap<String, Fault>,
    /// How many of the others cannot be read.
    unreadable: usize,
}

impl Registry {
    /// Makes a change. The service whose registrations it changed, if it did.
    pub fn apply(&mut self, change: Change<'_>) -> Option<ResourceName> {
        let key = String::from_utf8_lossy(change.key);
        let (service, id) = match named(&key) {
            Ok(named) => named,
            Err(text) => {
                match change.value {
                    Some(_) => {
                        let fault = Fault::new(&*key, "key", &text);
                        self.strays.insert(key.into_owned(), fault);
                    }
                    None => drop(self.strays.remove::<str>(&key)),
                }
                return None;
            }
        };
        let Some(value) = change.value else {
            let known = self.services.get_mut(&service)?;
            let gone = known.remove(&id)?;
            self.unreadable -= usize::from(gone.content.is_err());
            if known.is_empty() {
                self.services.remove(&service);
            }
            return Some(service);
        };
        let content = match read(&id, value) {
            Ok(read) => Ok(Arc::new(read)),
            Err(text) => Err(fault(&service, &id, &text)),
        };
        let entry = Entry {
            mod_revision: change.mod_revision,
            content,
        };
        self.unreadable += usize::from(entry.content.is_err());
        let known = self.services.entry(service.clone()).or_default();
        let before = known.insert(id, entry);
        self.unreadable -= usize::from(before.is_some_and(|before| before.content.is_err()));
        Some(service)
    }

    /// The services with registrations, read or not.
    pub fn services(&self) -> impl Iterator<Item = &ResourceName> {
        self.services.keys()
    }

    /// The endpoints of a service that may be used, by their ids. Of those with one address the
    /// one counts that was written last; if it drains, none.
    pub fn endpoints(&self, service: &ResourceName) -> Arc<[Endpoint]> {
        let mut newest: HashMap<SocketAddr, i64> = HashMap::new();
        for (entry, known) in self.readable(service) {
            let found = newest.entry(known.endpoint.address).or_insert(i64::MIN);
            *found = entry.mod_revision.max(*found);
        }
        let mut endpoints = Vec::with_capacity(newest.len());
        for (entry, known) in self.readable(service) {
            // Taken out, so that of two of one transaction the first counts.
            let is_newest = newest.get(&known.endpoint.address) == Some(&entry.mod_revision);
            if is_newest && newest.remove(&known.endpoint.address).is_some() && !known.draining {
                endpoints.push(known.endpoint.clone());
            }
        }
        endpoints.into()
    }

    fn readable(&self, service: &ResourceName) -> impl Iterator<Item = (&Entry, &Registration)> {
        let known = self.services.get(service).into_iter().flatten();
        known.filter_map(|(_, entry)| Some((entry, &**entry.content.as_ref().ok()?)))
    }

    /// What of a service's registrations is not used, and why.
    pub fn unused(&self, service: &ResourceName) -> Vec<String> {
        let used: HashMap<SocketAddr, Source> = self
            .endpoints(service)
            .iter()
            .map(|endpoint| (endpoint.address, endpoint.source.clone()))
            .collect();
        let mut told = Vec::new();
        for (id, entry) in self.services.get(service).into_iter().flatten() {
            match &entry.content {
                Err(fault) => told.push(fault.to_string()),
                Ok(known) if known.draining => {
                    let address = known.endpoint.address;
                    told.push(format!("endpoint {service}/{id}: {address} is draining"));
                }
                Ok(known) => {
                    let address = known.endpoint.address;
                    if used.get(&address) != Some(&known.endpoint.source) {
                        told.push(format!(
                            "endpoint {service}/{id}: {address} was registered again since"
                        ));
                    }
                }
            }
        }
        told
    }

    /// All that can be read as keys, values and modification revisions, from which the same follows.
    pub fn rows(&self) -> impl Iterator<Item = (String, String, i64)> {
        let services = self.services.iter();
        let all = services.flat_map(|(service, known)| known.iter().map(move |one| (service, one)));
        all.filter_map(|(service, (id, entry))| {
            let ResourceName { namespace, name } = service;
            let key = format!("{ENDPOINT_PREFIX}{namespace}/{name}/{id}");
            let fields = Fields::of(entry.content.as_ref().ok()?);
            Some((
                key,
                serde_json::to_string(&fields).ok()?,
                entry.mod_revision,
            ))
        })
    }

    /// The faults of all that cannot be read.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        // Nearly always there are none, and then nothing is to be looked through.
        let services = self.services.values().filter(|_| self.unreadable > 0);
        let entries = services.flat_map(OrdMap::values);
        let faults = entries.filter_map(|entry| entry.content.as_ref().err());
        self.strays.values().chain(faults)
    }

    /// The fault of one key, if it has one.
    pub fn fault(&self, key: &[u8]) -> Option<&Fault> {
        let key = String::from_utf8_lossy(key);
        match named(&key) {
            Ok((service, id)) => self
                .services
                .get(&service)?
                .get(&id)?
                .content
                .as_ref()
                .err(),
            Err(_) => self.strays.get::<str>(&key),
        }
    }

    /// How many cannot be read.
    pub fn refused(&self) -> usize {
        self.strays.len() + self.unreadable
    }

    /// How many can be read.
    pub fn len(&self) -> usize {
        let all: usize = self.services.values().map(OrdMap::len).sum();
        all - self.unreadable
    }

    /// Whether none can be read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
