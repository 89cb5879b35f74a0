//! Disks that fail.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use store_disk::{Disk, RealDisk};
use store_raft::{ProposeError, Role};

use crate::harness::{Mesh, Options, PATIENCE, until};

/// A disk that can be broken.
#[derive(Debug, Default)]
struct Brittle {
    broken: AtomicBool,
}

impl Brittle {
    fn check(&self) -> io::Result<()> {
        let broken = self.broken.load(Ordering::Relaxed);
        if broken {
            Err(io::Error::other("the disk is gone"))
        } else {
            Ok(())
        }
    }
}

impl Disk for Brittle {
    fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check()?;
        RealDisk.write_all_at(file, bytes, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        self.check()?;
        RealDisk.sync_data(file)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_stops_the_store_and_says_so() {
    let disk = Arc::new(Brittle::default());
    let options = Options {
        disk: Some(disk.clone()),
        ..Options::default()
    };
    let mesh = Mesh::form(1, options).await;
    let node = mesh.node(0);
    node.put("a", "1").await.unwrap();
    let store = node.store.clone();
    let ended = tokio::spawn(async move { store.ended().await });
    disk.broken.store(true, Ordering::Relaxed);
    let refused = node.put("b", "2").await;
    assert!(
        matches!(
            refused,
            Err(ProposeError::OutcomeUnknown(_) | ProposeError::Stopped)
        ),
        "{refused:?}"
    );
    let fatal = until("the status to say so", async || node.store.status().fatal).await;
    assert!(fatal.contains("the disk is gone"), "{fatal}");
    assert_eq!(node.store.status().role, Role::Stopped);
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    let ended = ended.expect("a task's end is told").unwrap();
    assert_eq!(ended.fault, "it returned", "{ended:?}");
    // What was applied can still be read, and no request hangs.
    assert_eq!(node.value("a").as_deref(), Some("1"));
    assert_eq!(node.put("c", "3").await, Err(ProposeError::Stopped));
    assert!(node.store.read_barrier().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_is_no_fault_to_anybody_who_shares_the_store() {
    let mesh = Mesh::form(1, Options::default()).await;
    let node = mesh.node(0);
    node.put("a", "1").await.unwrap();
    let shared = node.store.clone();
    tokio::select! {
        fault = shared.ended() => panic!("{fault:?}"),
        () = node.store.shutdown() => {}
    }
    assert_eq!(shared.status().role, Role::Stopped);
    let fault = tokio::time::timeout(Duration::from_millis(100), shared.ended()).await;
    assert!(fault.is_err(), "{fault:?}");
    shared.shutdown().await;
}
