//! Changes of headers, and what their values are made of.
//!
//! Owns the order of the changes of one level, the variables and their names (Envoy's), and that no
//! value can end its header. What a variable stands for is the caller's. Never knows which header may
//! be changed: `parse` refuses the others.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fault::suggest;
use crate::words::{HeaderText, WordFault, text_form};

/// A value that comes out longer is left out, and its header with it.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// What one level (a listener, virtual host, route or cluster) changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderChanges {
    /// Of requests, before they go to an upstream.
    pub request: Box<[HeaderChange]>,
    /// Of answers, before they go to the client.
    pub response: Box<[HeaderChange]>,
}

/// One change. Those of a level are made in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderChange {
    /// It goes.
    Remove(HeaderName),
    /// It has this value alone.
    Set(HeaderName, HeaderTemplate),
    /// It has this value too.
    Add(HeaderName, HeaderTemplate),
    /// It has this value if it has none.
    AddIfAbsent(HeaderName, HeaderTemplate),
}

impl HeaderChange {
    /// The header that is changed.
    pub fn name(&self) -> &HeaderName {
        match self {
            Self::Remove(name)
            | Self::Set(name, _)
            | Self::Add(name, _)
            | Self::AddIfAbsent(name, _) => name,
        }
    }

    /// The change for one request alone, its value made; `None` where that comes to nothing.
    pub fn settled(&self, tell: &dyn Fn(&Variable, &mut Vec<u8>)) -> Option<Self> {
        Some(match self {
            Self::Remove(name) => Self::Remove(name.clone()),
            Self::Set(name, template) => Self::Set(name.clone(), template.settled(tell)?),
            Self::Add(name, template) => Self::Add(name.clone(), template.settled(tell)?),
            Self::AddIfAbsent(name, template) => {
                Self::AddIfAbsent(name.clone(), template.settled(tell)?)
            }
        })
    }

    /// Makes the change; `tell` writes what a variable stands for. A value that comes to nothing
    /// changes nothing.
    pub fn apply(&self, headers: &mut HeaderMap, tell: &dyn Fn(&Variable, &mut Vec<u8>)) {
        match self {
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::Set(name, template) => {
                if let Some(value) = template.value(tell) {
                    headers.insert(name.clone(), value);
                }
            }
            Self::Add(name, template) => {
                if let Some(value) = template.value(tell) {
                    headers.append(name.clone(), value);
                }
            }
            Self::AddIfAbsent(name, template) => {
                if !headers.contains_key(name)
                    && let Some(value) = template.value(tell)
                {
                    headers.insert(name.clone(), value);
                }
            }
        }
    }
}

impl fmt::Display for HeaderChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(name) => write!(f, "remove {name}"),
            Self::Set(name, value) => write!(f, "set {name}: {value}"),
            Self::Add(name, value) => write!(f, "add {name}: {value}"),
            Self::AddIfAbsent(name, value) => write!(f, "add {name}: {value} if absent"),
        }
    }
}

/// The value of a header, with variables in it: `%PROTOCOL%`, `%REQ(x-tenant)%`, and `%%` for one
/// percent sign.
#[derive(Debug, Clone)]
pub struct HeaderTemplate {
    text: Box<str>,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    /// The same for every request.
    Fixed(HeaderValue),
    Made(Box<[Part]>),
}

#[derive(Debug, Clone)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// What differs from request to request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The client's address, through as many proxies as are trusted.
    ClientAddress,
    /// The address of the other end of the connection.
    PeerAddress,
    /// The request's version, such as `HTTP/1.1`.
    Protocol,
    /// When the request came, in RFC 3339 with milliseconds.
    StartTime,
    /// The virtual host that took the request.
    VirtualHost,
    /// The cluster that the request goes to.
    Cluster,
    /// The endpoint that answered. Of responses only.
    Endpoint,
    /// The status of the answer. Of responses only.
    Status,
    /// The host that the client asked, with its port if it gave one.
    Host,
    /// The path that the client asked for, normalised, with its query.
    Path,
    /// The method.
    Method,
    /// The value of a request's header as it came; of several, all, joined by `, `.
    RequestHeader(HeaderName),
}

/// Envoy's names of the variables that need no argument.
const PLAIN: [(&str, Variable); 8] = [
    (
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Variable::ClientAddress,
    ),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Variable::PeerAddress,
    ),
    ("PROTOCOL", Variable::Protocol),
    ("START_TIME", Variable::StartTime),
    ("VIRTUAL_HOST_NAME", Variable::VirtualHost),
    ("UPSTREAM_CLUSTER", Variable::Cluster),
    ("UPSTREAM_HOST", Variable::Endpoint),
    ("RESPONSE_CODE", Variable::Status),
];
/// What `REQ(...)` knows beside the headers.
const PSEUDO: [(&str, Variable); 3] = [
    (":authority", Variable::Host),
    (":path", Variable::Path),
    (":method", Variable::Method),
];

impl Variable {
    /// Whether it is known only when the answer is there.
    fn is_of_response(&self) -> bool {
        matches!(self, Self::Endpoint | Self::Status)
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text
            .strip_prefix("REQ(")
            .and_then(|it| it.strip_suffix(')'))
        {
            let lower = name.to_ascii_lowercase();
            if let Some((_, variable)) = PSEUDO.iter().find(|(known, _)| *known == lower) {
                return Ok(variable.clone());
            }
            return HeaderName::from_bytes(lower.as_bytes())
                .map(Self::RequestHeader)
                .map_err(|_| {
                    format!("`{name}` is not the name of a header; write it as %REQ(x-tenant)%")
                });
        }
        if let Some((_, variable)) = PLAIN.iter().find(|(known, _)| *known == text) {
            return Ok(variable.clone());
        }
        let names = PLAIN.iter().map(|(name, _)| *name);
        let known: Vec<&str> = names.chain(["REQ(name)"]).collect();
        Err(format!(
            "`%{text}%` is not a variable; {} (a percent sign is written `%%`)",
            suggest(text, &known)
        ))
    }
}

impl HeaderTemplate {
    /// The first variable in it that only an answer has, as it is written.
    pub(crate) fn of_response(&self) -> Option<&'static str> {
        let Value::Made(parts) = &self.value else {
            return None;
        };
        let found = parts.iter().find_map(|part| match part {
            Part::Variable(variable) if variable.is_of_response() => Some(variable),
            _ => None,
        })?;
        let named = PLAIN.iter().find(|(_, variable)| variable == found);
        named.map(|(name, _)| *name)
    }

    fn settled(&self, tell: &dyn Fn(&Variable, &mut Vec<u8>)) -> Option<Self> {
        let value = self.value(tell)?;
        Some(Self {
            text: self.text.clone(),
            value: Value::Fixed(value),
        })
    }

    /// The value for one request; `None` where it is empty or too long.
    fn value(&self, tell: &dyn Fn(&Variable, &mut Vec<u8>)) -> Option<HeaderValue> {
        let parts = match &self.value {
            Value::Fixed(value) => return Some(value.clone()),
            Value::Made(parts) => parts,
        };
        let mut value = Vec::with_capacity(self.text.len());
        for part in parts {
            match part {
                Part::Text(text) => value.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => tell(variable, &mut value),
            }
        }
        let value = value.trim_ascii();
        let fits = !value.is_empty() && value.len() <= VALUE_BYTES_MAX;
        // What could end a header is no value: whatever a variable told, it stays inside.
        fits.then(|| HeaderValue::from_bytes(value).ok())?
    }
}

impl FromStr for HeaderTemplate {
    type Err = WordFault;

    fn from_str(text: &str) -> Result<Self, WordFault> {
        text.parse::<HeaderText>()?;
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('%') {
            plain.push_str(before);
            let (name, after) = behind.split_once('%').ok_or_else(|| {
                WordFault::new(format!(
                    "{text:?} has a `%` without another; write `%%` for a percent sign, or a \
                     variable such as %PROTOCOL%"
                ))
            })?;
            if name.is_empty() {
                plain.push('%');
            } else {
                let variable = Variable::parse(name).map_err(WordFault::new)?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(Part::Variable(variable));
            }
            rest = after;
        }
        plain.push_str(rest);
        let value = if parts.is_empty() {
            let fault = |_| WordFault::new(format!("{text:?} is not the value of a header"));
            Value::Fixed(HeaderValue::from_str(&plain).map_err(fault)?)
        } else {
            if !plain.is_empty() {
                parts.push(Part::Text(plain.into()));
            }
            Value::Made(parts.into())
        };
        Ok(Self {
            text: text.into(),
            value,
        })
    }
}

impl fmt::Display for HeaderTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for HeaderTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for HeaderTemplate {}

text_form!(
    HeaderTemplate,
    "The value of a header, in which `%PROTOCOL%`, `%REQ(name)%` and other variables stand for what \
     differs from request to request, and `%%` for a percent sign.",
    "^([!-~]([\\t -~]*[!-~])?)?$"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<String> {
        let template: HeaderTemplate = text.parse().unwrap();
        let tell = |variable: &Variable, out: &mut Vec<u8>| match variable {
            Variable::Protocol => out.extend_from_slice(b"HTTP/1.1"),
            Variable::Path => out.extend_from_slice(b"/a?b"),
            Variable::RequestHeader(name) if name == "x-long" => out.resize(9000, b'a'),
            Variable::RequestHeader(name) if name == "x-bad" => out.extend_from_slice(b"a\r\nb: c"),
            _ => {}
        };
        let value = template.value(&tell)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn values_are_made_of_text_and_variables() {
        for (text, made) in [
            ("plain", Some("plain")),
            ("", Some("")),
            ("100%%", Some("100%")),
            ("%PROTOCOL%", Some("HTTP/1.1")),
            ("<%REQ(:path)%> %%%PROTOCOL%%%", Some("</a?b> %HTTP/1.1%")),
            // What comes to nothing is no value.
            ("%REQ(x-none)%", None),
            ("a %REQ(X-None)%", Some("a")),
            ("%REQ(x-long)%", None),
            ("%REQ(x-bad)%", None),
        ] {
            assert_eq!(value(text).as_deref(), made, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_or_no_variable_is_refused_with_its_remedy() {
        for (bad, part) in [
            ("a\r\nb: c", "is not the value of a header"),
            ("a\0", "is not the value of a header"),
            ("50%", "write `%%` for a percent sign"),
            (
                "%PROTOCOLL%",
                "`%PROTOCOLL%` is not a variable; did you mean `PROTOCOL`?",
            ),
            ("%x%", "use one of: DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT,"),
            ("%REQ(a b)%", "`a b` is not the name of a header"),
            ("%REQ()%", "`` is not the name of a header"),
        ] {
            let fault = bad.parse::<HeaderTemplate>().unwrap_err().to_string();
            assert!(fault.contains(part), "{fault}");
        }
    }

    #[test]
    fn changes_are_made_in_their_order() {
        let name = HeaderName::from_static;
        let text = |text: &str| text.parse().unwrap();
        let mut headers = HeaderMap::new();
        for value in ["1", "2"] {
            headers.append("a", value.parse().unwrap());
        }
        for change in [
            HeaderChange::AddIfAbsent(name("a"), text("x")),
            HeaderChange::Add(name("a"), text("3")),
            HeaderChange::Set(name("b"), text("old")),
            HeaderChange::Set(name("b"), text("new")),
            HeaderChange::Set(name("b"), text("%REQ(x-none)%")),
            HeaderChange::AddIfAbsent(name("c"), text("4")),
            HeaderChange::Add(name("d"), text("5")),
            HeaderChange::Remove(name("d")),
        ] {
            change.apply(&mut headers, &|_, _| {});
        }
        let all: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        assert_eq!(all, ["a=1", "a=2", "a=3", "b=new", "c=4"]);
    }
}
