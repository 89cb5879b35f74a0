//! What ends in the control plane ends no traffic, and is told.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use admin::{Answers, Readiness};
use model::ConfigRevision;

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
    let runtime = control_runtime().unwrap();
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
