//! Services by name.
//!
//! Owns the way from a call's path to the method that answers it. The generated code of a `.proto` file
//! implements [`Service`]; what a method does is its implementor's.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

/// A call as it arrived: the path names service and method.
pub type Call = http::Request<Body>;

/// An answer in the making.
pub type Answering = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

/// Whatever answers calls.
pub trait Answer: Send + Sync + 'static {
    /// Begins to answer `call`.
    fn answer(&self, call: Call) -> Answering;
}

/// One service of gRPC.
pub trait Service: Send + Sync + 'static {
    /// Its full name, `package.Service`.
    const NAME: &'static str;

    /// Begins to answer a call of [`method`].
    fn call(&self, call: Call) -> Answering;
}

/// What a service does with the sizes of messages, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct MessageLimits {
    /// Of a request; a larger one is refused with `OUT_OF_RANGE` before it is read.
    pub request: usize,
    /// Of an answer.
    pub answer: usize,
}

impl Default for MessageLimits {
    /// gRPC's customary 4 MiB for requests, any size for answers.
    fn default() -> Self {
        Self {
            request: 4 << 20,
            answer: usize::MAX,
        }
    }
}

/// The method that a call names: what follows the last `/` of its path.
pub fn method(call: &Call) -> &str {
    let path = call.uri().path();
    path.rsplit_once('/').map_or(path, |(_, method)| method)
}

/// The service that a call names, if its path has the form `/service/method`.
fn service(call: &Call) -> Option<&str> {
    let (service, _) = call.uri().path().strip_prefix('/')?.rsplit_once('/')?;
    Some(service)
}

/// The answer to a call of a method that the service does not have.
pub fn no_such_method(call: &Call) -> Answering {
    let path = call.uri().path();
    refuse(Status::unimplemented(format!(
        "skein: there is no method {path}"
    )))
}

/// An answer that only tells `status`.
pub fn refuse(status: Status) -> Answering {
    Box::pin(std::future::ready(status.into_http()))
}

/// Services that answer side by side.
#[derive(Default)]
pub struct Services {
    by_name: Vec<(&'static str, Box<dyn Erased>)>,
}

impl Services {
    /// Adds `service`, or puts it in the place of the one that has its name.
    #[must_use]
    pub fn with<S: Service>(mut self, service: S) -> Self {
        self.by_name.retain(|(name, _)| *name != S::NAME);
        self.by_name.push((S::NAME, Box::new(service)));
        self
    }

    /// Whether the service that `call` names is one of these.
    pub fn have(&self, call: &Call) -> bool {
        self.find(call).is_some()
    }

    fn find(&self, call: &Call) -> Option<&dyn Erased> {
        let wanted = service(call)?;
        // A dozen names: looking at all of them costs less than a hash.
        let (_, found) = self.by_name.iter().find(|(name, _)| *name == wanted)?;
        Some(&**found)
    }
}

impl Answer for Services {
    fn answer(&self, call: Call) -> Answering {
        match self.find(&call) {
            Some(service) => service.call(call),
            None => no_such_method(&call),
        }
    }
}

/// A service whose type is forgotten.
trait Erased: Send + Sync {
    fn call(&self, call: Call) -> Answering;
}

impl<S: Service> Erased for S {
    fn call(&self, call: Call) -> Answering {
        Service::call(self, call)
    }
}

/// Calls that stay inside the process, for gRPC's clients. A clone calls the same.
#[derive(Clone)]
pub struct InProcess(pub Arc<dyn Answer>);

impl tonic::codegen::Service<Call> for InProcess {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Infallibly;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Infallibly {
        Infallibly(self.0.answer(call))
    }
}

/// An answer in the form that clients and hyper want.
pub struct Infallibly(pub(crate) Answering);

impl Future for Infallibly {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context).map(Ok)
    }
}
