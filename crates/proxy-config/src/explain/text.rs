//! An explanation for people to read.

use std::fmt;

use super::{Chosen, ExplainedEndpoint, ExplainedTarget, Explanation};
use crate::compiled::{Balance, UpstreamHttp};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} for host {}", self.method, self.path, self.host)?;
        if let Some(listener) = &self.listener {
            writeln!(
                f,
                "listener {} ({} {})",
                listener.name, listener.protocol, listener.bind
            )?;
        }
        if let Some(host) = &self.virtual_host {
            writeln!(
                f,
                "virtual host {} ({})",
                host.name,
                host.domains.join(", ")
            )?;
        }
        for (at, route) in self.tried.iter().enumerate() {
            if self.untold > 0 && at + 1 == self.tried.len() {
                writeln!(f, "  ... {} more routes do not match", self.untold)?;
            }
            write!(f, "  routes[{}] {}: ", route.index, route.conditions)?;
            match &route.mismatch {
                Some(mismatch) => writeln!(f, "no, {mismatch}")?,
                None => writeln!(f, "matches")?,
            }
        }
        if let Some(chosen) = &self.chosen {
            chosen.fmt(f)?;
        }
        writeln!(
            f,
            "=> {} (config revision {})",
            self.outcome, self.config_revision
        )
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headers.fmt(f)?;
        if self.targets.is_empty() {
            return Ok(());
        }
        match self.timeout {
            Some(timeout) => writeln!(f, "timeout {timeout}")?,
            None => writeln!(f, "no timeout")?,
        }
        match self.idle_timeout {
            Some(time) if time.0.is_zero() => writeln!(f, "no idle timeout")?,
            Some(time) => writeln!(f, "idle timeout {time}")?,
            None => {}
        }
        if let Some(time) = self.max_stream_duration {
            writeln!(f, "at most {time} from head to end")?;
        }
        if let Some(retry) = &self.retry {
            retry.fmt(f)?;
        }
        if !self.upgrades.is_empty() {
            writeln!(f, "clients may go over to {}", self.upgrades)?;
        }
        if !self.hash.is_empty() {
            writeln!(f, "hash on {}", self.hash.join("; "))?;
        }
        self.mirror
            .iter()
            .try_for_each(|mirror| writeln!(f, "mirror {mirror}"))?;
        self.targets.iter().try_for_each(|target| {
            target.fmt(f)?;
            let by_key = matches!(target.balance, Balance::RingHash | Balance::Maglev);
            if by_key && self.hash.is_empty() {
                writeln!(f, "  nothing is hashed here: endpoints are drawn at random")?;
            }
            Ok(())
        })
    }
}

impl fmt::Display for ExplainedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = f64::from(self.weight) * 100.0 / f64::from(self.of);
        let Self {
            cluster,
            connect_timeout,
            panic_threshold,
            ..
        } = self;
        write!(
            f,
            "cluster {cluster}: {share:.1} % of the requests, by {}; connect timeout \
             {connect_timeout}, panic threshold {panic_threshold} %",
            self.balance.as_str()
        )?;
        if let Some(most) = self.max_requests_per_connection {
            write!(f, ", at most {most} requests per connection")?;
        }
        if let Some(most) = self.max_connection_duration {
            write!(f, ", connections for at most {most}")?;
        }
        if let Some((interval, timeout)) = self.connection_keepalive {
            write!(
                f,
                ", a PING every {interval} that is answered within {timeout}"
            )?;
        }
        if let Some(window) = self.slow_start {
            write!(f, ", slow start {window}")?;
        }
        if self.prefer_zone {
            write!(f, ", own zone first")?;
        }
        if self.http != UpstreamHttp::H1 {
            write!(f, ", spoken to by {}", self.http.as_str())?;
        }
        if let Some(version) = self.proxy_protocol {
            write!(
                f,
                ", told the client by the PROXY protocol {}",
                version.as_str()
            )?;
        }
        writeln!(f)?;
        self.headers.fmt(f)?;
        if let Some(subset) = &self.subset {
            writeln!(f, "  subset: {subset}")?;
        }
        for origin in &self.origins {
            writeln!(f, "  endpoints of {origin}")?;
        }
        if self.endpoints.is_empty() {
            writeln!(f, "  no endpoint: requests are answered 503")?;
        }
        let mut endpoints = self.endpoints.iter();
        endpoints.try_for_each(|endpoint| endpoint.fmt(f))?;
        let mut unused = self.unused.iter();
        unused.try_for_each(|unused| writeln!(f, "  not used: {unused}"))
    }
}

impl fmt::Display for ExplainedEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} weight {}", self.address, self.weight)?;
        if let Some(zone) = &self.zone {
            write!(f, ", zone {zone}")?;
        }
        if self.priority > 0 {
            write!(f, ", priority {}", self.priority)?;
        }
        if !self.labels.is_empty() {
            write!(f, ", {}", self.labels)?;
        }
        if let Some(source) = &self.source {
            write!(f, ", {source}")?;
        }
        if self.left_out {
            return writeln!(f, ": not in the subset");
        }
        write!(f, ": {}", self.health.verdict)?;
        if !self.health.unhealthy_by.is_empty() {
            write!(
                f,
                " (unhealthy says {})",
                self.health.unhealthy_by.join(", ")
            )?;
        }
        if let Some(ejected) = &self.health.ejected {
            write!(f, ", ejected for {} ({} left)", ejected.why, ejected.left)?;
        }
        writeln!(f)
    }
}
