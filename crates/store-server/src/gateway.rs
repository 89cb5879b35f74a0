//! etcd's JSON interface and its HTTP pages, beside gRPC on the client port.
//!
//! Owns which path is answered by what. A JSON call is made into the gRPC call that it stands for
//! and goes through the very services that gRPC's clients use; no message has code of its own here.
//! Never stands in a gRPC call's way: it is asked only for paths that no gRPC service has.

mod call;
mod fault;
mod objects;
mod pages;
mod routes;
mod transcode;

use std::sync::Arc;

use rpc::{Answer, Answering, Call, InProcess};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;

use crate::access::Guarded;

use self::pages::Page;
use self::routes::Methods;

pub use self::pages::MetricsText;
pub(crate) use self::pages::Pages;

/// `services`, and for all other paths the gateway to them.
pub(crate) fn beside(services: Guarded, pages: Pages) -> Arc<dyn Answer> {
    Arc::new(Gateway(Arc::new(Shared {
        methods: Methods::all(),
        services,
        pages,
    })))
}

struct Gateway(Arc<Shared>);

struct Shared {
    methods: Methods,
    services: Guarded,
    pages: Pages,
}

impl Answer for Gateway {
    fn answer(&self, call: Call) -> Answering {
        if self.0.services.have(&call) {
            return self.0.services.answer(call);
        }
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.answer(call).await })
    }
}

impl Shared {
    async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path();
        if is_grpc(request.headers()) {
            return Status::unimplemented(format!("skein: there is no method {path}")).into_http();
        }
        if let Some(page) = Page::at(path) {
            return self.pages.answer(page, request).await;
        }
        let Some(method) = self.methods.find(path) else {
            return fault::not_found(path);
        };
        if request.method() != http::Method::POST {
            return fault::method_not_allowed("POST");
        }
        // Only browsers say it. A page of any site could write here with the rights of whoever
        // looks at it: such calls need no permission of ours to be sent.
        if request.headers().contains_key(http::header::ORIGIN) {
            return fault::from_a_web_page();
        }
        let services = InProcess(Arc::new(self.services.clone()));
        call::call(services, method.clone(), request).await
    }
}

fn is_grpc(headers: &http::HeaderMap) -> bool {
    let content_type = headers.get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests;
