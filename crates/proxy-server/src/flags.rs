//! Why a request or connection ended as it did, in Envoy's words.
//!
//! Owns the list of response flags. Never decides which one applies.

/// Envoy's response flag, as log and metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// No route matched.
    NoRoute,
    /// The route's cluster does not exist.
    NoCluster,
    /// No endpoint can be used.
    NoHealthyUpstream,
    /// No connection could be made.
    UpstreamConnectFailure,
    /// A limit of the cluster is reached.
    UpstreamOverflow,
    /// The route's time is over.
    UpstreamTimeout,
    /// The upstream ended the connection.
    UpstreamTermination,
    /// The upstream's answer is no HTTP.
    UpstreamProtocolError,
    /// The client went away.
    DownstreamTermination,
    /// The client's request is no HTTP, or a suspicious one.
    DownstreamProtocolError,
    /// A body stood still for too long.
    StreamIdleTimeout,
    /// The client's request did not arrive in time.
    RequestTimeout,
    /// The listener closed and its drain time was over.
    DrainTimeout,
}

impl Flag {
    /// All flags, in the order of [`Flag::index`].
    pub(crate) const ALL: [Self; 13] = [
        Self::NoRoute,
        Self::NoCluster,
        Self::NoHealthyUpstream,
        Self::UpstreamConnectFailure,
        Self::UpstreamOverflow,
        Self::UpstreamTimeout,
        Self::UpstreamTermination,
        Self::UpstreamProtocolError,
        Self::DownstreamTermination,
        Self::DownstreamProtocolError,
        Self::StreamIdleTimeout,
        Self::RequestTimeout,
        Self::DrainTimeout,
    ];

    /// Its place in [`Flag::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Envoy's abbreviation; the last two are our own where Envoy has none.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectFailure => "UF",
            Self::UpstreamOverflow => "UO",
            Self::UpstreamTimeout => "UT",
            Self::UpstreamTermination => "UC",
            Self::UpstreamProtocolError => "UPE",
            Self::DownstreamTermination => "DC",
            Self::DownstreamProtocolError => "DPE",
            Self::StreamIdleTimeout => "SI",
            Self::RequestTimeout => "RT",
            Self::DrainTimeout => "DT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_listed_at_its_index() {
        for (index, flag) in Flag::ALL.iter().enumerate() {
            assert_eq!(flag.index(), index);
        }
    }
}
