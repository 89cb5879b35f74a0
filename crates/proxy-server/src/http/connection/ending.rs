//! How a connection ends, so that the client gets what was sent last.
//!
//! Owns the choice between closing, resetting and lingering. Never sends an answer.

use std::rc::Rc;

use tokio::time::Instant;

use super::{Downstream, LINGER, Next};
use crate::flags::Flag;
use crate::http::headers::ConnectionOption;
use crate::http::http2::{self, Peer};
use crate::http::record::Record;
use crate::proxy_protocol::Ends;
use crate::wire::{Amount, reset, whole};

impl Downstream {
    /// Ends the connection so that the client gets what was sent last.
    pub(super) async fn end(mut self, last: Next, accepted: Instant) {
        match last {
            // Without a word, what was sent last could have been cut short on the way.
            Next::Request | Next::Rest(_) | Next::Close if self.writer.says_its_end() => {
                let limit = Instant::now() + LINGER;
                let finish = self.writer.finish();
                let _ = self.timer.until(|| Some(limit), finish).await;
            }
            Next::Request | Next::Rest(_) | Next::Close => {}
            Next::Streams => {
                let about = (self.worker, self.slot);
                let ends = Ends {
                    client: self.peer,
                    local: self.reader.local_end(about.1.serving().address),
                };
                let peer = Peer::new(about, (ends, self.peer_text, self.is_tls), accepted);
                let io = whole(self.reader, self.writer);
                http2::serve(Rc::new(peer), io, &mut self.timer).await;
            }
            Next::Reset => reset(self.reader, self.writer),
            Next::Linger => {
                // Closing with unread bytes resets the connection, and the client would lose the
                // answer; so what still comes is read, for a while.
                let limit = Instant::now() + LINGER;
                let reader = &mut self.reader;
                let writer = &mut self.writer;
                let drain = async {
                    if writer.finish().await.is_ok() {
                        while let Ok(1..) = reader.fill(Amount::Little).await {
                            reader.buffer.clear();
                        }
                    }
                };
                let _ = self.timer.until(|| Some(limit), drain).await;
            }
        }
    }
}

/// What comes after a response that was relayed.
pub(super) fn after(record: &Record<'_>, received: bool) -> Next {
    if record.broken_off {
        return if record.flag == Some(Flag::DownstreamTermination) {
            Next::Close
        } else {
            Next::Reset
        };
    }
    match record.connection {
        ConnectionOption::Close if received => Next::Close,
        ConnectionOption::Close => Next::Linger,
        ConnectionOption::Kept | ConnectionOption::KeptOld => Next::Request,
    }
}
