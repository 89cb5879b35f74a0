//! TLS that is passed on as it is: where a connection goes is read from its first message.
//!
//! Owns the waiting for that message, and what is told where nobody takes it. Never ends TLS; the
//! bytes stay where they are, for `tcp` to pass them on.

use proxy_config::compiled::{Split, TlsAsked, TlsPassthrough};
use tokio::time::Instant;

use crate::client_hello::{ClientHello, HelloFault, HelloReader};
use crate::counters::ListenerCounters;
use crate::deadline::Timer;
use crate::flags::Flag;
use crate::wire::{Amount, Reader};

/// The alert that nobody of that name is here (RFC 6066, 3), in a record of its own.
pub(crate) const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 1, 0, 2, 2, 112];

/// What the first message of a connection told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inspected {
    NameFound,
    NameNotFound,
    NotTls,
    TooLarge,
    Malformed,
    Late,
    Closed,
}

impl Inspected {
    /// All of them, in the order of [`Inspected::index`].
    pub(crate) const ALL: [Self; 7] = [
        Self::NameFound,
        Self::NameNotFound,
        Self::NotTls,
        Self::TooLarge,
        Self::Malformed,
        Self::Late,
        Self::Closed,
    ];

    /// Its place in [`Inspected::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric's label; Envoy's words where it has them.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NameFound => "sni_found",
            Self::NameNotFound => "sni_not_found",
            Self::NotTls => "tls_not_found",
            Self::TooLarge => "client_hello_too_large",
            Self::Malformed => "client_hello_malformed",
            Self::Late => "timeout",
            Self::Closed => "closed",
        }
    }

    /// What is told of a connection that goes nowhere therefore.
    fn flag(self) -> Option<Flag> {
        match self {
            Self::NameFound | Self::NameNotFound => Some(Flag::NoRoute),
            Self::NotTls | Self::TooLarge | Self::Malformed => Some(Flag::DownstreamProtocolError),
            Self::Late => Some(Flag::RequestTimeout),
            Self::Closed => Some(Flag::DownstreamTermination),
        }
    }
}

/// Why a connection goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unroutable {
    pub(crate) flag: Option<Flag>,
    /// It began well, and can be told.
    pub(crate) is_tls: bool,
}

/// Where a connection goes, and the name that it asked for. What was read stays in the reader.
pub(crate) async fn route<'a>(
    listener: &'a TlsPassthrough,
    reader: &mut Reader,
    (timer, limit): (&mut Timer, Instant),
    counters: &ListenerCounters,
) -> (Result<&'a Split, Unroutable>, Option<Box<str>>) {
    let told = hello(reader, timer, limit).await;
    let inspected = match &told {
        Ok(hello) if hello.server_name.is_some() => Inspected::NameFound,
        Ok(_) => Inspected::NameNotFound,
        Err(inspected) => *inspected,
    };
    let unroutable = Unroutable {
        flag: inspected.flag(),
        is_tls: told.is_ok(),
    };
    // Who only looks whether somebody is here, as load balancers do, is no failure.
    if inspected == Inspected::Closed && reader.buffer.is_empty() {
        let flag = None;
        return (Err(Unroutable { flag, ..unroutable }), None);
    }
    counters.inspected[inspected.index()].increment();
    let Ok(hello) = told else {
        return (Err(unroutable), None);
    };
    let found = listener.routes.find(&TlsAsked {
        server_name: hello.server_name.as_deref(),
        offers: &|protocol| hello.offers(protocol),
    });
    let to = match found {
        Some(at) => Some(&listener.routes.routes()[at].to),
        None => listener.to.as_ref(),
    };
    (to.ok_or(unroutable), hello.server_name)
}

/// Waits for the first message.
async fn hello(
    reader: &mut Reader,
    timer: &mut Timer,
    limit: Instant,
) -> Result<ClientHello, Inspected> {
    let mut looking = HelloReader::default();
    loop {
        match looking.look(&reader.buffer) {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err(HelloFault::NotTls) => return Err(Inspected::NotTls),
            Err(HelloFault::TooLarge) => return Err(Inspected::TooLarge),
            Err(HelloFault::Malformed) => return Err(Inspected::Malformed),
        }
        match timer
            .until(|| Some(limit), reader.fill(Amount::Little))
            .await
        {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Err(Inspected::Closed),
            Err(_) => return Err(Inspected::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_told_is_listed_at_its_index() {
        for (index, inspected) in Inspected::ALL.iter().enumerate() {
            assert_eq!(inspected.index(), index);
        }
    }
}
