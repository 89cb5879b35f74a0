//! A tiny upstream that names itself in every answer, as a process of its own so that it can die.
//!
//! Owns one HTTP listener. Never proxies.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// `skein upstream`: what the demo starts; hidden from the help.
#[derive(Debug, clap::Args)]
pub(crate) struct Upstream {
    /// What it calls itself
    #[arg(long)]
    name: String,
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
}

impl Upstream {
    /// Serves until the process ends.
    pub(crate) fn run(self) -> std::io::Result<()> {
        super::children::end_with_parent();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        let hello = Bytes::from(format!("hello from {}\n", self.name));
        loop {
            let (stream, _) = listener.accept().await?;
            let hello = hello.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<_>| {
                    let body = answer(request.uri().path(), &hello);
                    async { Ok::<_, Infallible>(Response::new(Full::new(body))) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A client that goes away is no news.
                let _ = connection.await;
            });
        }
    }
}

fn answer(path: &str, hello: &Bytes) -> Bytes {
    if path == "/healthz" {
        Bytes::from_static(b"ok\n")
    } else {
        hello.clone()
    }
}
