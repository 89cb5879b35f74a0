//! `skein peers`: everyone that gossip knows.
//!
//! Owns the forms of a peer. Never says who is a member: that is `skein members`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::SystemTime;

use control_api::v1;
use model::{MeshId, NodeId};
use serde::Serialize;

use crate::age;
use crate::failure::Failure;
use crate::output::{Output, Report};
use crate::session::{MeshCommand, Session};
use crate::status::Addresses;
use crate::table::Table;

/// The options of `skein peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Peers {}

impl MeshCommand for Peers {
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure> {
        output.show(&PeersReport::of(
            session.peers().await?,
            age::unix_seconds(SystemTime::now()),
        ))
    }
}

/// What `peers` answers.
#[derive(Debug, Serialize)]
struct PeersReport {
    answered_by: String,
    peers: Vec<Peer>,
    #[serde(skip)]
    now: u64,
}

#[derive(Debug, Serialize)]
struct Peer {
    name: String,
    id: NodeId,
    mesh_id: Option<MeshId>,
    foreign: bool,
    liveness: &'static str,
    since_unix: Option<u64>,
    addresses: Addresses,
    version: String,
    zone: String,
    labels: BTreeMap<String, String>,
    roles: Vec<String>,
    config_revision: u64,
    load_percent: u32,
}

fn liveness_word(liveness: v1::Liveness) -> &'static str {
    match liveness {
        v1::Liveness::Alive => "ALIVE",
        v1::Liveness::Down => "DOWN",
        v1::Liveness::Left => "LEFT",
        v1::Liveness::Unspecified => "UNKNOWN",
    }
}

impl From<v1::Peer> for Peer {
    fn from(peer: v1::Peer) -> Self {
        Self {
            liveness: liveness_word(peer.liveness()),
            name: peer.name,
            id: NodeId(peer.id),
            mesh_id: (peer.mesh_id != 0).then_some(MeshId(peer.mesh_id)),
            foreign: peer.foreign,
            since_unix: (peer.since != 0).then_some(peer.since),
            addresses: peer.addresses.into(),
            version: peer.version,
            zone: peer.zone,
            labels: peer.labels,
            roles: peer.roles,
            config_revision: peer.config_revision,
            load_percent: peer.load_percent,
        }
    }
}

impl PeersReport {
    fn of(response: v1::PeersResponse, now: u64) -> Self {
        let peers = response.peers.into_iter().map(Peer::from).collect();
        Self {
            answered_by: response.answered_by,
            peers,
            now,
        }
    }
}

impl Report for PeersReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new(&[
            "PEER", "ID", "LIVENESS", "SINCE", "GOSSIP", "VERSION", "ZONE", "ROLES", "CONFIG",
            "LOAD",
        ]);
        for peer in &self.peers {
            table.row([
                peer.name.clone(),
                peer.id.to_string(),
                peer.liveness.to_owned(),
                age::since(peer.since_unix, self.now),
                peer.addresses.gossip.clone(),
                peer.version.clone(),
                peer.zone.clone(),
                peer.roles.join(","),
                peer.config_revision.to_string(),
                format!("{}%", peer.load_percent),
            ]);
        }
        table.write(out)?;
        for peer in self.peers.iter().filter(|peer| peer.foreign) {
            let mesh = peer
                .mesh_id
                .map_or_else(|| "another mesh".to_owned(), |id| format!("mesh {id}"));
            writeln!(
                out,
                "{}: belongs to {mesh} and is kept out; give it other --join addresses",
                peer.name
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    fn response() -> v1::PeersResponse {
        let peer = v1::Peer {
            name: "n1".into(),
            id: 1,
            mesh_id: 0xbeef,
            liveness: v1::Liveness::Alive.into(),
            since: 1_000,
            addresses: Some(v1::Addresses {
                gossip: "10.0.0.1:7946".into(),
                ..Default::default()
            }),
            version: "0.1.0".into(),
            zone: "west".into(),
            roles: vec!["store".into(), "proxy".into()],
            config_revision: 12,
            load_percent: 37,
            ..Default::default()
        };
        let stranger = v1::Peer {
            name: "x".into(),
            id: 2,
            mesh_id: 0xdead,
            liveness: v1::Liveness::Left.into(),
            foreign: true,
            ..Default::default()
        };
        v1::PeersResponse {
            peers: vec![peer, stranger],
            answered_by: "n1".into(),
        }
    }

    #[test]
    fn people_see_a_table_and_who_is_kept_out() {
        let (text, _) = rendered(&PeersReport::of(response(), 1_061));
        let expected = "\
PEER  ID                LIVENESS  SINCE  GOSSIP         VERSION  ZONE  ROLES        CONFIG  LOAD
n1    0000000000000001  ALIVE     1m     10.0.0.1:7946  0.1.0    west  store,proxy  12      37%
x     0000000000000002  LEFT      -      -              -        -     -            0       0%
x: belongs to mesh 000000000000dead and is kept out; give it other --join addresses
";
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_see_every_field() {
        let (_, json) = rendered(&PeersReport::of(response(), 0));
        assert_eq!(
            json["peers"][0],
            json!({
                "name": "n1", "id": "0000000000000001", "mesh_id": "000000000000beef",
                "foreign": false, "liveness": "ALIVE", "since_unix": 1000,
                "addresses": {"client": "", "peer": "", "gossip": "10.0.0.1:7946", "admin": ""},
                "version": "0.1.0", "zone": "west", "labels": {}, "roles": ["store", "proxy"],
                "config_revision": 12, "load_percent": 37,
            })
        );
        assert_eq!(json["answered_by"], "n1");
        assert_eq!(json["peers"][1]["since_unix"], json!(null));
    }
}
