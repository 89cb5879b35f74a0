//! What flows after a client went over to another protocol: bytes both ways, to their end.
//!
//! Owns half-close (an end in one direction is passed on, and the other one goes on) and what ends
//! it otherwise. Never looks at the bytes.

use std::cell::Cell;

use futures_util::future::try_join;
use http::{StatusCode, Version};
use tokio::time::Instant;

use super::stay::Stay;
use super::{Switch, Switching};
use crate::deadline::{Progress, earlier};
use crate::flags::Flag;
use crate::http::attempt::Client;
use crate::http::ends::{FromClient, FromUpstream, Sink, Source, ToClient};
use crate::http::flow::{End, Flow, ReuseUpstream};
use crate::http::headers::ConnectionOption;
use crate::http::relay::{RelayFault, more};
use crate::http::upload::Standing;
use crate::http1::{ResponseHead, Step};

impl<C: ToClient, A: FromUpstream> Flow<'_, '_, '_, '_, C, A> {
    /// Tells the client that the upstream agreed, and carries bytes both ways to their end.
    pub(in crate::http) async fn switched<B: FromClient>(
        &mut self,
        switching: &Switching<'_>,
        from_client: &mut B,
        to_upstream: &mut impl Sink,
    ) -> End {
        let job = self.job;
        self.agree(switching);
        from_client.switch();
        to_upstream.switch();
        let stay = Stay::new(job, &self.upstream.cluster.key, switching.to);
        let limit = || earlier(earlier(job.ends, job.idle_limit()), stay.ends());
        let ended = {
            let Client { to, timer, answer } = &mut *self.client;
            let mut to_client = to.switch(answer, switching.to);
            let mut from_upstream = self.from.tunnel();
            let up = (from_client, to_upstream);
            let down = (&mut from_upstream, &mut to_client);
            let both = both_ways(up, down, job.standing);
            let work = async {
                tokio::select! {
                    biased;
                    ended = both => Some(ended),
                    () = stay.over() => None,
                }
            };
            timer.until(limit, work).await
        };
        let now = Instant::now();
        self.record.ended = Some(now);
        match ended {
            Ok(Some(Ok(()))) => End::Whole(ReuseUpstream::No),
            Ok(Some(Err(RelayFault::Upstream))) => {
                self.upstream.counters().resets_received.increment();
                self.cut(Flag::UpstreamTermination, "the upstream broke off")
            }
            Ok(Some(Err(RelayFault::Client))) => {
                self.upstream.counters().resets_sent.increment();
                self.cut(Flag::DownstreamTermination, "the client went away")
            }
            Ok(None) => self.cut(Flag::DrainTimeout, "the listener closed"),
            Err(_) if stay.ends().is_some_and(|ends| ends <= now) => {
                self.cut(Flag::DrainTimeout, "no route leads there any more")
            }
            Err(_) if job.ends.is_some_and(|ends| ends <= now) => {
                self.upstream.counters().timeouts.increment();
                self.cut(Flag::UpstreamTimeout, "the route's time was over")
            }
            Err(_) => {
                self.upstream.counters().timeouts.increment();
                self.cut(Flag::StreamIdleTimeout, "nothing flowed any more")
            }
        }
    }

    /// Makes the answer that agrees one for the client.
    fn agree(&mut self, switching: &Switching<'_>) {
        let job = self.job;
        self.retries.release();
        if switching.to == Switch::Connect {
            *self.client.answer = ResponseHead::default();
        }
        let answer = &mut *self.client.answer;
        switching.fit(answer, job.edits.head);
        let is_upgrade = switching.to != Switch::Connect && job.head.version != Version::HTTP_2;
        self.record.status = match is_upgrade {
            true => StatusCode::SWITCHING_PROTOCOLS.as_u16(),
            false => StatusCode::OK.as_u16(),
        };
        self.record.connection = ConnectionOption::Close;
        self.dress();
        job.standing.progress.mark();
    }
}

/// Carries bytes both ways until both sides ended theirs. Who broke off, if it was not that.
async fn both_ways(
    (from_client, to_upstream): (&mut impl Source, &mut impl Sink),
    (from_upstream, to_client): (&mut impl Source, &mut impl Sink),
    standing: &Standing,
) -> Result<(), RelayFault> {
    let (up_over, down_over) = (Cell::new(false), Cell::new(false));
    let sent = Cell::new(0);
    let progress = &standing.progress;
    let up = async {
        match carry(from_client, to_upstream, progress, &standing.received).await {
            Ok(()) => up_over.set(true),
            // The upstream had said all that it had to say, and the client heard it.
            Err(_) if down_over.get() => {}
            Err(Side::From) => return Err(RelayFault::Client),
            Err(Side::To) => return Err(RelayFault::Upstream),
        }
        Ok(())
    };
    let down = async {
        match carry(from_upstream, to_client, progress, &sent).await {
            Ok(()) => down_over.set(true),
            // The client had said all that it had to say, and does not wait.
            Err(Side::To) if up_over.get() => {}
            Err(Side::To) => return Err(RelayFault::Client),
            Err(Side::From) => return Err(RelayFault::Upstream),
        }
        Ok(())
    };
    try_join(up, down).await.map(|_| ())
}

/// Which side of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    To,
}

/// Carries one direction to its end, and the end with it.
async fn carry(
    from: &mut impl Source,
    to: &mut impl Sink,
    progress: &Progress,
    carried: &Cell<u64>,
) -> Result<(), Side> {
    loop {
        match from.step() {
            Ok(Step::Data(count)) => {
                carried.set(carried.get() + count as u64);
                to.pass(from, count).await.map_err(|_| Side::To)?;
            }
            Ok(Step::More) => {
                to.flush().await.map_err(|_| Side::To)?;
                progress.mark();
                more(from, to).await.map_err(|fault| match fault {
                    RelayFault::Upstream => Side::From,
                    RelayFault::Client => Side::To,
                })?;
                progress.mark();
            }
            Ok(Step::End) => break,
            Err(_) => return Err(Side::From),
        }
    }
    to.finish(None).await.map_err(|_| Side::To)
}
