//! What a node does on its client port while its state is damaged: it says so, and answers nothing
//! else.
//!
//! Owns the words, and which calls need no sound state. Finding and healing damage is the store's.

use store_api::etcdserverpb::{AlarmMember, AlarmType};
use store_api::verdict::Proposed;
use store_raft::{Soundness, Store};
use tonic::Status;

use crate::watch::WatchHub;

/// Calls that tell about the node and the mesh, and nothing from the state.
const TELLING: [&str; 4] = [
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Alarm",
    "/grpc.health.v1.Health/",
    "/skein.v1.Mesh/",
];

/// Refuses what needs a sound state while there is none. Nothing was done, so any other node may be
/// asked at once.
///
/// # Errors
/// `Unavailable` names the fault and the remedy.
pub(crate) fn check(store: &Store) -> Result<(), Status> {
    match store.damage() {
        None => Ok(()),
        Some(damage) => Err(refusal(&damage)),
    }
}

/// The same for a call of the client port.
///
/// # Errors
/// As for [`check`].
pub(crate) fn check_path(store: &Store, path: &str) -> Result<(), Status> {
    if TELLING.iter().any(|telling| path.starts_with(telling)) {
        return Ok(());
    }
    check(store)
}

fn refusal(damage: &str) -> Status {
    Proposed::No.mark(Status::unavailable(format!("skein: {damage}; ask another")))
}

/// The alarm that etcd's clients know: of this member if it is damaged, of member 0, as in etcd, if
/// nobody can tell which one is.
pub(crate) fn alarm(store: &Store) -> Option<AlarmMember> {
    let soundness = store.soundness();
    let known = soundness.borrow();
    let member_id = match (&known.damage, &known.undecided) {
        (Some(_), _) => store.id().0,
        (None, Some(_)) => 0,
        (None, None) => return None,
    };
    let alarm = AlarmType::Corrupt.into();
    Some(AlarmMember { member_id, alarm })
}

/// What is wrong with the state, in words.
pub fn fault(store: &Store) -> Option<String> {
    let soundness = store.soundness();
    let Soundness {
        damage, undecided, ..
    } = &*soundness.borrow();
    damage.as_ref().or(undecided.as_ref()).cloned()
}

/// Ends all watches when damage is found; runs until the store is gone.
pub(crate) async fn follow(store: Store, hub: std::sync::Arc<WatchHub>) {
    let mut soundness = store.soundness();
    loop {
        let damaged = soundness.wait_for(|known| known.damage.is_some());
        if damaged.await.is_err() {
            return std::future::pending().await;
        }
        hub.begin_anew();
        let healed = soundness.wait_for(|known| known.damage.is_none());
        if healed.await.is_err() {
            return std::future::pending().await;
        }
        // What was handed out meanwhile may go beyond what there is.
        hub.begin_anew();
    }
}
