//! What ends in the control plane ends no traffic, and is told.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use admin::{Answers, Readiness};
use model::ConfigRevision;
use rpc::{Answer, Answering, Call};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::codegen::http;

use super::*;
use crate::answers::NodeAnswers;
use crate::last_known_good::LastKnownGood;

/// A node on ports of the system's choice, with a listener in its last-known-good config.
fn options(folder: &std::path::Path) -> NodeOptions {
    let resource = |kind: &str, fields: &str| {
        let json = format!(
            r#"{{"schema":1,"kind":"{kind}","namespace":"default","name":"web",{fields}}}"#
        );
        (format!("/skein/config/default/{kind}/web"), json)
    };
    // Free a moment ago; a config cannot leave the choice to the system.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let bind = free.local_addr().unwrap();
    let kept = LastKnownGood {
        mesh_id: None,
        config_revision: ConfigRevision(3),
        resources: vec![resource(
            "Listener",
            &format!(r#""bind":"{bind}","protocol":"http""#),
        )],
    };
    kept.save(folder).unwrap();
    drop(free);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    NodeOptions {
        data_dir: folder.to_owned(),
        client_addr: any,
        peer_addr: any,
        gossip_addr: any,
        admin_addr: any,
        workers: 1,
        ..NodeOptions::new("n1".parse().unwrap())
    }
}

/// Whether the proxy answers: that no host is configured, but it answers.
fn answers(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n";
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 404 ")
}

#[test]
fn a_panic_of_a_control_task_is_told_and_the_workers_outlive_the_control_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = control_runtime(1).unwrap();
    let assembled = runtime.block_on(assemble(options(folder.path()))).unwrap();
    let parts = Arc::clone(&assembled.parts);
    let address = *parts.in_force.borrow().listeners[0]
        .result
        .as_ref()
        .unwrap();
    assert!(answers(address));

    runtime.block_on(async {
        let doomed = async { panic!("out of luck") };
        parts.tasks.spawn("doomed", doomed);
        parts.tasks.ended().await;
    });
    let told = "the task `doomed` ended: it panicked: out of luck; restart this node";
    assert_eq!(parts.status().nodes[0].store_fault, told);
    let admin = NodeAnswers::new(&parts, assembled.registry);
    let fault = Some(told.to_owned());
    assert_eq!(admin.readiness(), Readiness::Ready { fault });
    assert!(admin.metrics().contains("skein_task_faults 1"));
    assert!(answers(address));

    // Worse than any panic: nothing of the control plane runs any more.
    runtime.shutdown_background();
    assert!(answers(address));
}

/// Tells that it was called, and answers once the gate is open.
struct Gated {
    called: Arc<Notify>,
    gate: watch::Receiver<bool>,
}

impl Answer for Gated {
    fn answer(&self, _: Call) -> Answering {
        let mut gate = self.gate.clone();
        self.called.notify_one();
        Box::pin(async move {
            gate.wait_for(|open| *open).await.unwrap();
            http::Response::new(Body::empty())
        })
    }
}

async fn accepts(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

#[test]
fn clients_are_answered_before_other_nodes_are_hung_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let [client, peer] = [free(), free()].map(|free| free.local_addr().unwrap());
    let options = NodeOptions {
        client_addr: client,
        peer_addr: peer,
        ..options(folder.path())
    };
    control_runtime(1).unwrap().block_on(async {
        let assembled = assemble(options).await.unwrap();
        let parts = Arc::clone(&assembled.parts);
        let (stop, shutdown) = ShutdownTrigger::new();
        let (sockets, registry) = (assembled.sockets, assembled.registry);
        let (ports, serving) = serve::start(&parts, sockets, registry, &shutdown);
        let (open, gate) = watch::channel(false);
        let called = Arc::<Notify>::default();
        let gated = Gated {
            called: Arc::clone(&called),
            gate,
        };
        ports.answer_clients(Arc::new(gated));
        let mut call = tokio::net::TcpStream::connect(client).await.unwrap();
        let request = b"POST /gated/call HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        call.write_all(request).await.unwrap();
        called.notified().await;
        let ending = tokio::spawn({
            let parts = Arc::clone(&parts);
            async move { end_ports(&parts, &stop, serving, false).await }
        });
        while accepts(client).await {
            tokio::task::yield_now().await;
        }
        assert!(accepts(peer).await, "the other nodes are still needed");
        open.send_replace(true);
        let mut answer = String::new();
        call.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        ending.await.unwrap();
        assert!(!accepts(peer).await);
        parts.tasks.stop();
    });
}
