//! The client: an ordered set of endpoints and the two ways to call them.
//!
//! Owns which endpoint is tried when, and the deadline of a whole call. The call itself is a
//! closure over a channel, so any gRPC service of the client port fails over alike.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tls::Dialer;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::call::CallChannel;
use crate::endpoint::Endpoint;
use crate::error::{ClientError, Tried, WriteFailure, read_elsewhere, reason, sort_write};
use crate::sign_in::{Credentials, SignIn};

/// How a client connects, its times, and who calls.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How long one call may take over all endpoints together.
    pub deadline: Duration,
    /// How long one endpoint may take to accept a connection.
    pub connect_timeout: Duration,
    /// How TLS is spoken: with endpoints that are `https://…`, and those without a scheme.
    pub tls: Option<Dialer>,
    /// Who calls. Without, calls work only where auth is off.
    pub credentials: Option<Credentials>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            tls: None,
            credentials: None,
        }
    }
}

/// A client of one mesh. A clone shares connections and the memory of which endpoint answers.
#[derive(Debug, Clone)]
pub struct Client {
    endpoints: Arc<[Endpoint]>,
    /// The endpoint that answered last; calls begin there.
    preferred: Arc<AtomicUsize>,
    options: ClientOptions,
    sign_in: SignIn,
}

impl Client {
    /// A client of the nodes at `endpoints` (`HOST:PORT`, perhaps after `http://` or `https://`),
    /// tried in this order. Connects on first
    /// use; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::NoEndpoint`] and [`ClientError::BadEndpoint`].
    pub fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let endpoints = endpoints
            .into_iter()
            .map(|text| {
                Endpoint::parse(text.as_ref(), options.connect_timeout, options.tls.as_ref())
            })
            .collect::<Result<Arc<[_]>, _>>()?;
        if endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        Ok(Self {
            endpoints,
            preferred: Arc::default(),
            sign_in: SignIn::new(options.credentials.clone()),
            options,
        })
    }

    /// Runs a call that changes nothing, on one endpoint after the other until one answers. An
    /// endpoint that hangs gets its share of the deadline only.
    ///
    /// # Errors
    /// [`ClientError::Unavailable`] when none answered, otherwise the answer's error.
    pub async fn read<T, F, Fut>(&self, call: F) -> Result<T, ClientError>
    where
        F: Fn(CallChannel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.options.deadline;
        let mut tried = Vec::new();
        for (position, index) in self.order().enumerate() {
            let endpoint = &self.endpoints[index];
            let share = deadline.saturating_duration_since(Instant::now())
                / u32::try_from(self.endpoints.len() - position).unwrap_or(u32::MAX);
            let share_end = Instant::now() + share;
            let attempt = self.attempt(endpoint, share_end, &call);
            match timeout_at(share_end, attempt).await {
                Ok(Ok(answer)) => {
                    self.prefer(index);
                    return Ok(answer);
                }
                Ok(Err(status)) if read_elsewhere(&status) => {
                    tried.push(endpoint.tried(reason(&status)));
                }
                Ok(Err(status)) => return Err(ClientError::from_answer(&status)),
                Err(_elapsed) => tried.push(endpoint.tried(no_answer(share))),
            }
        }
        Err(ClientError::Unavailable { tried })
    }

    /// Runs a call that changes something. Goes on with the next endpoint only if the change
    /// surely was not proposed: never sent, or answered with `skein-proposed: no`.
    ///
    /// # Errors
    /// [`ClientError::OutcomeUnknown`] when it may have happened, [`ClientError::Unavailable`]
    /// when it surely did not, otherwise the answer's error.
    pub async fn write<T, F, Fut>(&self, call: F) -> Result<T, ClientError>
    where
        F: Fn(CallChannel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.options.deadline;
        let mut tried = Vec::new();
        for index in self.order() {
            let endpoint = &self.endpoints[index];
            let unknown = |reason| ClientError::OutcomeUnknown {
                endpoint: endpoint.address.clone(),
                reason,
            };
            let attempt = self.attempt(endpoint, deadline, &call);
            match timeout_at(deadline, attempt).await {
                Ok(Ok(answer)) => {
                    self.prefer(index);
                    return Ok(answer);
                }
                Ok(Err(status)) => match sort_write(&status) {
                    WriteFailure::Elsewhere => tried.push(endpoint.tried(reason(&status))),
                    WriteFailure::Final => return Err(ClientError::from_answer(&status)),
                    WriteFailure::Unknown => return Err(unknown(reason(&status))),
                },
                Err(_elapsed) => return Err(unknown(no_answer(self.options.deadline))),
            }
            // Past the deadline an attempt could only end as unknown; nothing was sent yet.
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(ClientError::Unavailable { tried })
    }

    /// One call at one endpoint; a second one if the first came with an old token, which is refused
    /// before anything is done.
    async fn attempt<T, F, Fut>(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
        call: &F,
    ) -> Result<T, Status>
    where
        F: Fn(CallChannel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let mut fresh = false;
        loop {
            let token = self.sign_in.token(endpoint, deadline, fresh).await?;
            let channel = CallChannel::new(endpoint.channel.clone(), deadline, token);
            match call(channel).await {
                Err(status) if !fresh && self.sign_in.helps(&status) => fresh = true,
                done => return done,
            }
        }
    }

    pub(crate) fn sign_in(&self) -> &SignIn {
        &self.sign_in
    }

    /// Every endpoint's index once, the one that answered last first.
    pub(crate) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.endpoints.len());
        (0..count).map(move |step| (first + step) % count)
    }

    pub(crate) fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index]
    }

    pub(crate) fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.options
    }
}

impl Endpoint {
    pub(crate) fn tried(&self, reason: String) -> Tried {
        Tried {
            endpoint: self.address.clone(),
            reason,
        }
    }
}

pub(crate) fn no_answer(waited: Duration) -> String {
    format!("no answer within {:.1} s", waited.as_secs_f32())
}
