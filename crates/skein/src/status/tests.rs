//! The forms of `skein status` on fixed data.

use serde_json::json;

use super::*;
use crate::output::rendered;

fn response() -> v1::StatusResponse {
    let good = v1::NodeStatus {
        name: "n1".into(),
        id: 0x0a,
        role: v1::Role::Leader.into(),
        state: v1::ConfigState::Synced.into(),
        config_revision: 12,
        version: "0.1.0".into(),
        zone: "west".into(),
        labels: [("tier".to_owned(), "edge".to_owned())].into(),
        addresses: Some(v1::Addresses {
            client: "10.0.0.1:2379".into(),
            peer: "10.0.0.1:2380".into(),
            gossip: "10.0.0.1:7946".into(),
            admin: "10.0.0.1:9901".into(),
        }),
        listeners: vec![v1::ListenerStatus {
            name: "edge".into(),
            bind: "0.0.0.0:8080".into(),
            state: v1::ListenerState::Listening.into(),
            fault: String::new(),
        }],
        since: 1_000,
        load_percent: 37,
        ..Default::default()
    };
    let bad = v1::NodeStatus {
        name: "n2".into(),
        role: v1::Role::Follower.into(),
        state: v1::ConfigState::Refused.into(),
        config_revision: 12,
        listeners: vec![v1::ListenerStatus {
            name: "edge".into(),
            bind: "0.0.0.0:8080".into(),
            state: v1::ListenerState::Failed.into(),
            fault: "address in use; stop the other process".into(),
        }],
        refused: vec![v1::Refusal {
            resource: "Cluster api".into(),
            fault: "endpoints: no such host; correct it".into(),
        }],
        store_fault: "the store stopped: no space left on device".into(),
        ..Default::default()
    };
    v1::StatusResponse {
        mesh_id: 0xbeef,
        leader: "n1".into(),
        has_quorum: true,
        config_revision: 12,
        nodes: vec![good, bad],
        answered_by: "n1".into(),
        cluster_version: "0.1".into(),
        downgrade: false,
        live_bytes: 700,
        history_bytes: 90,
        quota_bytes: 1_000,
    }
}

#[test]
fn people_see_a_table_and_each_fault_below_it() {
    let (text, _) = rendered(&StatusReport::of(response(), 1_125));
    let expected = "\
mesh 000000000000beef, version 0.1, config revision 12, leader n1, quorum
NODE  ROLE      STATE    SINCE  CONFIG  VERSION  ZONE  CLIENT         LISTENERS
n1    leader    SYNCED   2m     12      0.1.0    west  10.0.0.1:2379  edge 0.0.0.0:8080
n2    follower  REFUSED  -      12      -        -     -              edge 0.0.0.0:8080 (failed)
n2: Listener edge: address in use; stop the other process
n2: Cluster api: endpoints: no such host; correct it
n2: the store stopped: no space left on device
";
    assert_eq!(text, expected);
}

#[test]
fn programs_see_every_field() {
    let (_, json) = rendered(&StatusReport::of(response(), 0));
    let first = json!({
        "name": "n1", "id": "000000000000000a", "role": "leader", "state": "SYNCED",
        "config_revision": 12, "version": "0.1.0", "zone": "west", "labels": {"tier": "edge"},
        "addresses": {
            "client": "10.0.0.1:2379", "peer": "10.0.0.1:2380",
            "gossip": "10.0.0.1:7946", "admin": "10.0.0.1:9901",
        },
        "listeners": [
            {"name": "edge", "bind": "0.0.0.0:8080", "state": "listening", "fault": null},
        ],
        "refused": [], "store_fault": null, "since_unix": 1_000, "load_percent": 37,
    });
    assert_eq!(json["nodes"][0], first);
    assert_eq!(json["nodes"][1]["id"], json!(null));
    assert_eq!(
        json["nodes"][1]["store_fault"],
        "the store stopped: no space left on device"
    );
    let refused =
        json!([{"resource": "Cluster api", "fault": "endpoints: no such host; correct it"}]);
    assert_eq!(json["nodes"][1]["refused"], refused);
    assert_eq!(json["mesh_id"], "000000000000beef");
    assert_eq!(
        (&json["leader"], &json["has_quorum"]),
        (&json!("n1"), &json!(true))
    );
    assert_eq!(
        (&json["config_revision"], &json["answered_by"]),
        (&json!(12), &json!("n1"))
    );
    assert_eq!(
        (&json["cluster_version"], &json["downgrade"]),
        (&json!("0.1"), &json!(false))
    );
    assert_eq!(
        (
            &json["live_bytes"],
            &json["history_bytes"],
            &json["quota_bytes"]
        ),
        (&json!(700), &json!(90), &json!(1_000))
    );
}

#[test]
fn a_node_alone_says_so() {
    let alone = v1::StatusResponse {
        leader: String::new(),
        has_quorum: false,
        ..response()
    };
    let (text, json) = rendered(&StatusReport::of(alone, 0));
    assert!(text.contains("leader none, NO QUORUM"), "{text}");
    assert_eq!(json["leader"], json!(null));

    let unformed = v1::StatusResponse {
        mesh_id: 0,
        ..response()
    };
    let (text, json) = rendered(&StatusReport::of(unformed, 0));
    assert!(text.starts_with("no mesh yet: n1 waits"), "{text}");
    assert_eq!(json["mesh_id"], json!(null));

    let filling = v1::StatusResponse {
        live_bytes: 800,
        ..response()
    };
    let (text, _) = rendered(&StatusReport::of(filling, 0));
    assert!(
        text.contains("take 80 % of its quota (800 of 1000 bytes)"),
        "{text}"
    );
    let unknown = v1::StatusResponse {
        quota_bytes: 0,
        ..response()
    };
    let (text, _) = rendered(&StatusReport::of(unknown, 0));
    assert!(
        !text.contains("quota"),
        "an older node does not tell it: {text}"
    );

    let held = v1::StatusResponse {
        downgrade: true,
        ..response()
    };
    let (text, _) = rendered(&StatusReport::of(held, 0));
    assert!(text.contains(", version 0.1 (downgrade), "), "{text}");
    let unagreed = v1::StatusResponse {
        cluster_version: String::new(),
        ..response()
    };
    let (_, json) = rendered(&StatusReport::of(unagreed, 0));
    assert_eq!(json["cluster_version"], json!(null));
}
