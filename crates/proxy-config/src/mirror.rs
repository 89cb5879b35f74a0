//! Copies of requests, as the proxy makes them.
//!
//! Owns which requests are copied and which host a copy is for.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::compiled::Cluster;
use crate::resource::Percent;

/// Where copies of a route's requests go.
#[derive(Debug)]
pub struct Mirror {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// How many of the requests.
    pub percent: Percent,
    /// The copy has the host of the request, not that with `-shadow` behind its name.
    pub keep_host: bool,
}

impl Mirror {
    /// Whether the request with this draw, which must be uniform in `0..Percent::WHOLE`, is copied.
    pub fn takes(&self, draw: u32) -> bool {
        draw < self.percent.millionths()
    }

    /// The host of the copy of a request for `host`.
    pub fn host<'a>(&self, host: &'a str) -> Cow<'a, str> {
        if self.keep_host {
            return Cow::Borrowed(host);
        }
        let name_end = host.rfind(']').map_or(0, |at| at + 1);
        let name_end = host[name_end..]
            .find(':')
            .map_or(host.len(), |at| name_end + at);
        let (name, port) = host.split_at(name_end);
        Cow::Owned(format!("{name}-shadow{port}"))
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % to {}", self.percent, self.cluster.name)?;
        f.write_str(if self.keep_host { ", host kept" } else { "" })
    }
}
