//! Servers that behave as a test wants: scripted stores, closed ports, ports that say nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::ShutdownTrigger;
use rpc::{Port, Services, Speaks};
use store_api::etcdserverpb::kv_server::{Kv, KvServer};
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::etcdserverpb::watch_server::{Watch, WatchServer};
use store_api::etcdserverpb::*;
use store_api::mvccpb::{Event, KeyValue};
use store_client::{Client, ClientOptions};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// What a fake store does with a put or a range.
#[derive(Clone)]
pub(crate) enum Behaviour {
    Answer,
    Fail(Status),
    Hang,
}

/// What a fake store does with each watch: whom it tells of the create request, and what it says.
pub(crate) type WatchScript =
    Box<dyn FnMut(WatchCreateRequest, mpsc::Sender<Result<WatchResponse, Status>>) + Send>;

struct Store {
    behaviour: Behaviour,
    calls: Arc<AtomicUsize>,
    script: Arc<Mutex<Option<WatchScript>>>,
}

/// A server in a runtime of its own, so that ending it cuts every connection.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl Fake {
    pub(crate) fn store(behaviour: Behaviour) -> Self {
        Self::start(behaviour, None)
    }

    pub(crate) fn watch(script: WatchScript) -> Self {
        Self::start(Behaviour::Answer, Some(script))
    }

    fn start(behaviour: Behaviour, script: Option<WatchScript>) -> Self {
        let (runtime, listener, address) = listen();
        let calls = Arc::new(AtomicUsize::new(0));
        let script = Arc::new(Mutex::new(script));
        let store = Arc::new(Store {
            behaviour,
            calls: calls.clone(),
            script,
        });
        let services = Services::default()
            .with(KvServer::from_arc(store.clone()))
            .with(WatchServer::from_arc(store));
        runtime.spawn(async move {
            // Nobody asks it to stop: it goes with the runtime.
            let (_stop, shutdown) = ShutdownTrigger::new();
            let port = Port::plain(Speaks::Http2);
            rpc::serve(listener, port, Arc::new(services), shutdown).await;
        });
        Self {
            address,
            calls,
            runtime: Some(runtime),
        }
    }

    /// Accepts connections and never says a word.
    pub(crate) fn silent() -> Self {
        let (runtime, listener, address) = listen();
        runtime.spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.push(stream);
            }
        });
        Self {
            address,
            calls: Arc::default(),
            runtime: Some(runtime),
        }
    }

    /// Answers every connection with bytes that are not HTTP/2.
    pub(crate) fn garbage() -> Self {
        let (runtime, listener, address) = listen();
        runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                use tokio::io::AsyncWriteExt;
                let _ = stream
                    .write_all(b"220 mail.example.com ESMTP ready\r\n")
                    .await;
            }
        });
        Self {
            address,
            calls: Arc::default(),
            runtime: Some(runtime),
        }
    }

    /// Requests that arrived.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Ends the server and cuts its connections.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let ending = std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(5)));
            ending.join().expect("the server ends");
        }
    }

    pub(crate) async fn wait_for_calls(&self, count: usize) {
        tokio::time::timeout(Duration::from_secs(10), async {
            while self.calls() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .expect("the request arrives");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

fn listen() -> (Runtime, TcpListener, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("nonblocking");
    let address = listener.local_addr().expect("an address");
    let guard = runtime.enter();
    let listener = TcpListener::from_std(listener).expect("a listener");
    drop(guard);
    (runtime, listener, address)
}

/// An address where nothing listens.
pub(crate) fn closed_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port")
}

pub(crate) fn client(endpoints: &[SocketAddr], deadline: Duration) -> Client {
    let options = ClientOptions {
        deadline,
        connect_timeout: Duration::from_millis(500),
        ..ClientOptions::default()
    };
    Client::new(endpoints.iter().map(SocketAddr::to_string), options).expect("a client")
}

pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..Default::default()
    })
}

pub(crate) fn created(revision: i64) -> WatchResponse {
    WatchResponse {
        header: header(revision),
        created: true,
        ..Default::default()
    }
}

pub(crate) fn events(revisions: &[i64]) -> WatchResponse {
    let event = |revision: &i64| Event {
        kv: Some(KeyValue {
            mod_revision: *revision,
            ..Default::default()
        }),
        ..Default::default()
    };
    WatchResponse {
        header: header(revisions.last().copied().unwrap_or_default()),
        events: revisions.iter().map(event).collect(),
        ..Default::default()
    }
}

impl Store {
    async fn act(&self) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match &self.behaviour {
            Behaviour::Answer => Ok(()),
            Behaviour::Fail(status) => Err(status.clone()),
            Behaviour::Hang => std::future::pending().await,
        }
    }
}

impl Kv for Store {
    type RangeStreamStream = Answers<RangeStreamResponse>;

    async fn range(&self, _: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.act()
            .await
            .map(|()| Response::new(RangeResponse::default()))
    }

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.act()
            .await
            .map(|()| Response::new(PutResponse::default()))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

impl Watch for Store {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut requests = request.into_inner();
        let (answers, outbound) = mpsc::channel(16);
        let script = self.script.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if let Some(RequestUnion::CreateRequest(create)) = request.request_union {
                    let mut script = script.lock().expect("unpoisoned");
                    script.as_mut().expect("a script")(create, answers.clone());
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }
}
