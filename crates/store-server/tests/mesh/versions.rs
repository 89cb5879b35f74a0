//! Members of different versions: what the mesh agrees on, and whom it takes in.

use model::Version;
use store_api::errors;
use store_api::etcdserverpb::downgrade_request::DowngradeAction;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::{DowngradeRequest, StatusRequest};
use store_disk::DataDir;
use store_mvcc::{AgreedVersion, Caller, Command, SetVersionOp};
use store_raft::{StartError, Store, StoreConfig};
use store_server::{JoinError, request_join};
use tonic::{Code, Status};

use crate::harness::{Mesh, Node, Setting, put, until};

fn v(minor: u16) -> Version {
    Version { major: 0, minor }
}

async fn mesh_of(size: usize, version: Version) -> Mesh {
    let setting = Setting {
        version,
        ..Setting::default()
    };
    Mesh::form_set(size, setting).await
}

async fn agreed(mesh: &Mesh, version: Version, downgrade: bool) {
    until("all to agree on the version", async || {
        let expected = Some(AgreedVersion { version, downgrade });
        mesh.running()
            .all(|node| node.store.image().meta().version == expected)
            .then_some(())
    })
    .await;
}

/// Asks for a version as any command does that needs it.
async fn ask_for(node: &Node, version: Version) -> Result<(), Status> {
    let command = Command::SetClusterVersion(SetVersionOp {
        version,
        downgrade: false,
    });
    let patience = node.server.patience(&tonic::metadata::MetadataMap::new());
    node.server
        .writes()
        .submit(&Caller::Nobody, command, patience)
        .await?;
    Ok(())
}

async fn downgrade(node: &Node, action: DowngradeAction, version: &str) -> Result<String, Status> {
    let request = DowngradeRequest {
        action: action.into(),
        version: version.to_owned(),
    };
    let mut maintenance = MaintenanceClient::new(node.channel());
    Ok(maintenance.downgrade(request).await?.into_inner().version)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_rises_when_the_last_member_did() {
    let setting = Setting {
        version: v(3),
        told: Some(v(2)),
        ..Setting::default()
    };
    let mesh = Mesh::form_set(3, setting).await;
    agreed(&mesh, v(2), false).await;
    // Of the last one, nobody heard since the others are newer.
    let last = mesh.node(mesh.follower().await);
    mesh.gossip.forget(last.store.id());
    for node in mesh
        .running()
        .filter(|node| node.store.id() != last.store.id())
    {
        mesh.gossip.runs(node.store.id(), v(3));
    }
    let refused = ask_for(last, v(3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let expected = format!(
        "skein: a change of the cluster version needs every node at version 0.3 or newer; the mesh \
         is at 0.2: upgrade {}",
        last.member().name
    );
    assert_eq!(refused.message(), expected);
    last.kv().put(put("a", "v")).await.unwrap();
    assert_eq!(last.store.image().cluster_version(), v(2));

    mesh.gossip.runs(last.store.id(), v(3));
    agreed(&mesh, v(3), false).await;
    ask_for(last, v(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_neighbours_of_the_version_are_taken_in() {
    let mut mesh = mesh_of(1, v(2)).await;
    agreed(&mesh, v(2), false).await;
    let seeds = [mesh.node(0).peer.to_string()];
    for (version, remedy) in [
        (v(1), "run version 0.2 or the one after it"),
        (
            v(4),
            "upgrade the members by one minor version at a time first",
        ),
    ] {
        let place = mesh.add_at("newcomer", version).await;
        let refused = request_join(None, &seeds, &mesh.node(place).member(), version, None).await;
        let Err(JoinError::Refused(text)) = refused else {
            panic!("{refused:?}")
        };
        assert!(text.contains("the mesh is at version 0.2"), "{text}");
        assert!(text.contains(remedy), "{text}");
        mesh.kill(place);
    }
    let place = mesh.add_at("newcomer", v(3)).await;
    request_join(None, &seeds, &mesh.node(place).member(), v(3), None)
        .await
        .unwrap();
    mesh.node(place).kv().put(put("a", "v")).await.unwrap();
    assert_eq!(mesh.node(0).store.image().cluster_version(), v(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_too_old_or_too_new_does_not_start() {
    let mut mesh = mesh_of(1, v(2)).await;
    agreed(&mesh, v(2), false).await;
    let store = mesh.node(0).store.clone();
    store.snapshot().await;
    until("a snapshot", async || {
        (store.status().snapshot > 0).then_some(())
    })
    .await;
    drop(store);
    mesh.kill(0);
    let data = until("the data directory", async || {
        DataDir::open(mesh.dirs[0].path()).ok()
    })
    .await;
    for (version, fault) in [
        (
            v(1),
            "this node runs version 0.1, and the mesh is at version 0.2: run version 0.2 or the \
             one after it",
        ),
        (
            v(4),
            "this node runs version 0.4, and the mesh is at version 0.2: upgrade every node by \
             one minor version at a time, this one too",
        ),
    ] {
        let config = StoreConfig {
            version,
            ..StoreConfig::new(data.clone())
        };
        match Store::start(config).await {
            Err(StartError::Version(text)) => assert_eq!(text, fault),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it starts"),
        }
    }
    let config = StoreConfig {
        version: v(3),
        ..StoreConfig::new(data)
    };
    Store::start(config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_closes_the_gate_until_it_is_cancelled() {
    let mut mesh = mesh_of(3, v(3)).await;
    agreed(&mesh, v(3), false).await;
    let follower = mesh.follower().await;
    let node = mesh.node(follower);
    for (action, version, error) in [
        (
            DowngradeAction::Validate,
            "0.1",
            errors::invalid_downgrade_target_version(),
        ),
        (
            DowngradeAction::Validate,
            "0.3",
            errors::invalid_downgrade_target_version(),
        ),
        (
            DowngradeAction::Enable,
            "0.x",
            errors::wrong_downgrade_version_format(),
        ),
        (DowngradeAction::Cancel, "", errors::no_inflight_downgrade()),
    ] {
        let got = downgrade(node, action, version).await.unwrap_err();
        assert_eq!((got.code(), got.message()), (error.code(), error.message()));
    }
    assert_eq!(
        downgrade(node, DowngradeAction::Validate, "0.2")
            .await
            .unwrap(),
        "0.3"
    );
    agreed(&mesh, v(3), false).await;

    assert_eq!(
        downgrade(node, DowngradeAction::Enable, "0.2")
            .await
            .unwrap(),
        "0.3"
    );
    agreed(&mesh, v(2), true).await;
    let again = downgrade(node, DowngradeAction::Enable, "0.1")
        .await
        .unwrap_err();
    assert_eq!(again.message(), errors::downgrade_in_process().message());
    let mut maintenance = MaintenanceClient::new(node.channel());
    let status = maintenance.status(StatusRequest {}).await.unwrap();
    let info = status.into_inner().downgrade_info.unwrap();
    assert_eq!((info.enabled, info.target_version.as_str()), (true, "0.2"));

    // The gate is closed though all members are newer.
    let refused = ask_for(node, v(3)).await.unwrap_err();
    assert!(
        refused
            .message()
            .ends_with("the mesh is at 0.2: try again in a moment, or cancel the downgrade"),
        "{refused}"
    );
    // Its log would stop an older node; members that are older start again from what they applied.
    let seeds = [node.peer.to_string()];
    let place = mesh.add_at("newcomer", v(2)).await;
    let newcomer = mesh.node(place);
    let refused = request_join(None, &seeds, &newcomer.member(), v(2), None).await;
    assert!(
        matches!(&refused, Err(JoinError::Refused(text)) if text.contains("is under way")),
        "{refused:?}"
    );
    mesh.kill(place);

    downgrade(mesh.node(follower), DowngradeAction::Cancel, "")
        .await
        .unwrap();
    // All are newer, so the version rises again at once.
    agreed(&mesh, v(3), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_strands_nobody() {
    let setting = Setting {
        version: v(2),
        told: Some(v(3)),
        ..Setting::default()
    };
    let mesh = Mesh::form_set(3, setting).await;
    agreed(&mesh, v(2), false).await;
    let (leader, follower) = (mesh.leader().await, mesh.follower().await);
    let refused = downgrade(mesh.node(follower), DowngradeAction::Enable, "0.1")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let named = &mesh.node(follower).member().name;
    assert!(
        refused.message().contains("within one minor version") && refused.message().contains(named),
        "{refused}"
    );
    // It is the others that are newer.
    assert!(!refused.message().contains(&mesh.node(leader).member().name));

    for node in mesh.running() {
        mesh.gossip.runs(node.store.id(), v(2));
    }
    downgrade(mesh.node(follower), DowngradeAction::Enable, "0.1")
        .await
        .unwrap();
    agreed(&mesh, v(1), true).await;
}
