//! The rule of forming a mesh, on its own and in every interleaving of a few nodes.

use super::*;
use proptest::prelude::*;

fn address(id: u64) -> SocketAddr {
    ([127, 0, 0, 1], 1000 + u16::try_from(id).unwrap()).into()
}

fn own(id: u64, expect: usize) -> Own {
    Own {
        id: NodeId(id),
        peer_addr: address(id),
        expect,
        has_seeds: true,
        listened: true,
        promise: None,
    }
}

fn other(id: u64, expect: usize) -> Other {
    Other {
        id: NodeId(id),
        name: format!("n{id}").parse().unwrap(),
        peer_addr: address(id),
        mesh: None,
        expect,
        promise: None,
    }
}

fn set(ids: &[u64]) -> FoundingSet {
    FoundingSet(ids.iter().map(|&id| (NodeId(id), address(id))).collect())
}

#[test]
fn a_lone_node_listens_then_founds() {
    let mut node = Own {
        has_seeds: false,
        listened: false,
        ..own(1, 1)
    };
    assert_eq!(next_step(&node, &[]), Step::Wait(Waiting::Listening));
    node.listened = true;
    assert_eq!(next_step(&node, &[]), Step::Promise(set(&[1])));
    node.promise = Some(set(&[1]));
    assert_eq!(next_step(&node, &[]), Step::Found(set(&[1])));
}

#[test]
fn a_joiner_never_founds_alone() {
    assert_eq!(next_step(&own(1, 1), &[]), Step::Wait(Waiting::ForMesh));
}

#[test]
fn an_existing_mesh_is_joined_whatever_is_expected() {
    let mesh = MeshId(9);
    let member = Other {
        mesh: Some(mesh),
        ..other(2, 3)
    };
    for expect in [1, 3] {
        let step = next_step(&own(1, expect), std::slice::from_ref(&member));
        assert_eq!(
            step,
            Step::Join {
                mesh,
                through: vec![address(2)]
            }
        );
    }
    let stranger = Other {
        mesh: Some(MeshId(8)),
        ..other(3, 3)
    };
    let step = next_step(&own(1, 3), &[member, stranger]);
    assert_eq!(step, Step::Wait(Waiting::TwoMeshes(MeshId(8), MeshId(9))));
}

#[test]
fn a_promise_is_never_exchanged_for_another_mesh() {
    let node = Own {
        promise: Some(set(&[1, 2])),
        ..own(1, 2)
    };
    let elsewhere = Other {
        mesh: Some(MeshId(9)),
        ..other(3, 2)
    };
    let step = next_step(&node, &[elsewhere]);
    assert_eq!(step, Step::Wait(Waiting::PromisedElsewhere(MeshId(9))));
    // Its own set's mesh, which the others founded first, is not another one.
    let founded = Other {
        mesh: Some(set(&[1, 2]).mesh_id()),
        ..other(2, 2)
    };
    assert_eq!(next_step(&node, &[founded]), Step::Found(set(&[1, 2])));
}

#[test]
fn unequal_expectations_are_named() {
    let step = next_step(&own(1, 3), &[other(2, 5), other(3, 3)]);
    let Step::Wait(waiting) = step else {
        panic!("{step:?}")
    };
    assert!(
        waiting.to_string().contains("n2 has --bootstrap-expect 5"),
        "{waiting}"
    );
}

proptest! {
    /// Whatever each node sees and whenever it acts, at most one set is ever founded, and every node
    /// keeps its first promise.
    #[test]
    fn no_interleaving_founds_two_meshes(
        schedule in prop::collection::vec((0usize..5, any::<u8>()), 1..200),
    ) {
        let mut nodes: Vec<Own> = (0..5).map(|id| own(id, 3)).collect();
        let mut founded: Vec<Option<FoundingSet>> = vec![None; nodes.len()];
        for (at, seen) in schedule {
            if founded[at].is_some() {
                continue;
            }
            let others: Vec<Other> = (0..nodes.len())
                .filter(|&i| i != at && seen & (1 << i) != 0)
                .map(|i| Other {
                    mesh: founded[i].as_ref().map(FoundingSet::mesh_id),
                    promise: nodes[i].promise.clone(),
                    ..other(i as u64, 3)
                })
                .collect();
            match next_step(&nodes[at], &others) {
                Step::Promise(set) => {
                    prop_assert!(nodes[at].promise.is_none(), "a second promise");
                    prop_assert!(set.0.contains_key(&nodes[at].id), "promised without itself");
                    nodes[at].promise = Some(set);
                }
                Step::Found(set) => {
                    prop_assert_eq!(nodes[at].promise.as_ref(), Some(&set));
                    for id in set.0.keys() {
                        let promise = &nodes[usize::try_from(id.0).unwrap()].promise;
                        prop_assert_eq!(promise.as_ref(), Some(&set));
                    }
                    founded[at] = Some(set);
                }
                Step::Wait(_) | Step::Join { .. } => {}
            }
        }
        let mut meshes: Vec<_> = founded.iter().flatten().map(FoundingSet::mesh_id).collect();
        meshes.sort_unstable();
        meshes.dedup();
        prop_assert!(meshes.len() <= 1, "two meshes: {meshes:?}");
    }
}
