//! Who a client says it is.
//!
//! Owns the token: fetched with the password when it is first needed, and anew when the store takes
//! it no longer. Never shows the password, and never signs in at a store that asks nobody.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use store_api::errors;
use store_api::etcdserverpb::AuthenticateRequest;
use store_api::etcdserverpb::auth_client::AuthClient;
use store_api::verdict::Proposed;
use tokio::time::{Instant, timeout_at};
use tonic::codegen::http::HeaderValue;
use tonic::{Request, Status};

use crate::call::{CallChannel, TOKEN_KEY};
use crate::client::no_answer;
use crate::endpoint::Endpoint;
use crate::error::{read_elsewhere, reason};

/// A user and the password. Not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The standing of a client with the store. A clone shares it.
#[derive(Debug, Clone)]
pub(crate) struct SignIn {
    /// Without, calls come as nobody's.
    credentials: Option<Credentials>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone)]
enum State {
    Unknown,
    /// Auth was off when it was tried.
    NotAsked,
    Token(HeaderValue),
}

impl SignIn {
    pub(crate) fn new(credentials: Option<Credentials>) -> Self {
        let state = Arc::new(Mutex::new(State::Unknown));
        Self { credentials, state }
    }

    /// Whether an error says that a newer token could help.
    pub(crate) fn helps(&self, status: &Status) -> bool {
        self.helps_with(status.message())
    }

    /// The same, by the error's text.
    pub(crate) fn helps_with(&self, text: &str) -> bool {
        let known = [errors::invalid_auth_token(), errors::user_empty()];
        self.credentials.is_some() && known.iter().any(|known| text.ends_with(known.message()))
    }

    /// The token for a call; `fresh`: the one there is was not taken. `None`: none is needed.
    ///
    /// # Errors
    /// The answer to the attempt; whatever was to be called is surely not done.
    pub(crate) async fn token(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
        fresh: bool,
    ) -> Result<Option<HeaderValue>, Status> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let known = self.lock().clone();
        match known {
            State::Token(token) if !fresh => return Ok(Some(token)),
            State::NotAsked if !fresh => return Ok(None),
            _ => {}
        }
        let request = AuthenticateRequest {
            name: credentials.user.clone(),
            password: credentials.password.clone(),
        };
        let waits = deadline.saturating_duration_since(Instant::now());
        // Ahead of the deadline of the call itself, so that it is clear that that was not made.
        let by = deadline - waits / 8;
        let channel = CallChannel::new(endpoint.channel.clone(), by, None);
        let mut client = AuthClient::new(channel);
        let answer = match timeout_at(by, client.authenticate(request)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Status::unavailable(no_answer(waits))),
        };
        let off = errors::auth_not_enabled();
        let state = match answer {
            Ok(answer) => {
                let token = HeaderValue::from_str(&answer.into_inner().token);
                State::Token(token.map_err(|_| Status::internal("skein: the token is no text"))?)
            }
            Err(status) if status.message() == off.message() => State::NotAsked,
            Err(status) if read_elsewhere(&status) => {
                return Err(Proposed::No.mark(Status::unavailable(reason(&status))));
            }
            Err(status) => return Err(Proposed::No.mark(status)),
        };
        *self.lock() = state.clone();
        Ok(match state {
            State::Token(token) => Some(token),
            State::NotAsked | State::Unknown => None,
        })
    }

    /// A request with the token, for a call through no [`CallChannel`].
    ///
    /// # Errors
    /// As [`SignIn::token`].
    pub(crate) async fn request<T>(
        &self,
        endpoint: &Endpoint,
        deadline: Instant,
        fresh: bool,
        message: T,
    ) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        if let Some(token) = self.token(endpoint, deadline, fresh).await? {
            let token = token.as_bytes().try_into();
            let token = token.map_err(|_| Status::internal("skein: the token is no text"))?;
            request.metadata_mut().insert(TOKEN_KEY, token);
        }
        Ok(request)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
