//! One endpoint: its address as the user wrote it, and the connection to it.
//!
//! Owns parsing and the transport settings; `https://` asks for TLS. Connects when first used, and again when a connection
//! is lost; never retries a call.

use std::time::Duration;

use tls::Dialer;
use tonic::transport::{Channel, Endpoint as Transport};

use crate::error::ClientError;

/// A silent connection is probed this often …
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// … and given up when a probe has no answer for this long.
const KEEP_ALIVE_WAIT: Duration = Duration::from_secs(5);

/// One endpoint and its channel. A clone shares the connection.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

impl Endpoint {
    /// Reads `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`; without a scheme TLS is spoken
    /// if `tls` is there. Must be called inside a tokio runtime, because the
    /// channel's worker is spawned here; nothing is connected yet.
    pub(crate) fn parse(
        text: &str,
        connect_timeout: Duration,
        tls: Option<&Dialer>,
    ) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::BadEndpoint {
            endpoint: text.to_owned(),
            reason: reason.to_owned(),
        };
        let address = text.trim().trim_end_matches('/');
        let (dialer, address) = match address.split_once("://") {
            None => (tls, address),
            Some(("http", address)) => (None, address),
            Some(("https", address)) if tls.is_some() => (tls, address),
            Some(("https", _)) => {
                return Err(bad("TLS needs the CA of its certificate; give --cacert"));
            }
            Some(_) => return Err(bad("write HOST:PORT, or https://HOST:PORT")),
        };
        let Some((host, port)) = address.rsplit_once(':') else {
            return Err(bad("the port is missing; write HOST:PORT"));
        };
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(bad("write HOST:PORT with a port from 1 to 65535"));
        }
        let scheme = if dialer.is_some() { "https" } else { "http" };
        let channel = Transport::from_shared(format!("{scheme}://{address}"))
            .map_err(|_| bad("not an address; write HOST:PORT"))?
            .connect_timeout(connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_WAIT)
            .connect_with_connector_lazy(dialer.cloned().unwrap_or_else(Dialer::plain));
        Ok(Self {
            address: address.to_owned(),
            channel,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_with_and_without_scheme_are_one() {
        for text in [
            "127.0.0.1:2379",
            "http://127.0.0.1:2379",
            " http://127.0.0.1:2379/ ",
        ] {
            let endpoint = Endpoint::parse(text, Duration::from_secs(1), None).expect(text);
            assert_eq!(endpoint.address, "127.0.0.1:2379");
        }
        assert!(Endpoint::parse("[::1]:2379", Duration::from_secs(1), None).is_ok());
    }

    #[tokio::test]
    async fn a_bad_address_names_itself_and_the_remedy() {
        for text in [
            "",
            "localhost",
            ":2379",
            "localhost:http",
            "ftp://a:1",
            "a b:1",
        ] {
            let error = Endpoint::parse(text, Duration::from_secs(1), None)
                .unwrap_err()
                .to_string();
            assert!(error.contains("HOST:PORT"), "{text}: {error}");
        }
    }
}
