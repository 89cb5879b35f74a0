//! The rule of forming a mesh, on its own and in every interleaving of a few nodes.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

fn address(id: u64) -> SocketAddr {
    ([127, 0, 0, 1], 1000 + u16::try_from(id).unwrap()).into()
}

fn own(id: u64, expect: usize) -> Own {
    Own {
        id: NodeId(id),
        peer_addr: address(id),
        mesh: None,
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

/// Nodes as `form` would drive them.
struct World {
    nodes: Vec<Own>,
    /// The mesh that each is a member of.
    member: Vec<Option<MeshId>>,
}

impl World {
    /// Three founders, and as many that only join.
    fn new(founders: usize, joiners: usize) -> Self {
        let founder = |id| own(id, if founders == 1 { 1 } else { founders });
        let mut nodes: Vec<Own> = (0..founders as u64).map(founder).collect();
        if founders == 1 {
            nodes[0].has_seeds = false;
        }
        nodes.extend((0..joiners as u64).map(|id| own(100 + id, 1)));
        let member = vec![None; nodes.len()];
        Self { nodes, member }
    }

    /// Node `at` looks at those in `seen` and acts. Returns whether anything changed.
    fn act(&mut self, at: usize, seen: u8) -> Result<bool, TestCaseError> {
        if self.member[at].is_some() {
            return Ok(false);
        }
        let others: Vec<Other> = (0..self.nodes.len())
            .filter(|&i| i != at && seen & (1 << i) != 0)
            .map(|i| Other {
                mesh: self.member[i],
                promise: self.nodes[i].promise.clone(),
                ..other(self.nodes[i].id.0, self.nodes[i].expect)
            })
            .collect();
        match next_step(&self.nodes[at], &others) {
            Step::Promise(set) => {
                prop_assert!(self.nodes[at].promise.is_none(), "a second promise");
                prop_assert!(
                    set.0.contains_key(&self.nodes[at].id),
                    "promised without itself"
                );
                self.nodes[at].promise = Some(set);
            }
            Step::Found(set) => {
                for node in self
                    .nodes
                    .iter()
                    .filter(|node| set.0.contains_key(&node.id))
                {
                    prop_assert_eq!(node.promise.as_ref(), Some(&set));
                }
                // The log reaches every founder.
                for (node, member) in self.nodes.iter().zip(&mut self.member) {
                    if set.0.contains_key(&node.id) {
                        *member = Some(set.mesh_id());
                    }
                }
            }
            Step::Join { mesh, .. } => self.member[at] = Some(mesh),
            Step::Wait(_) => return Ok(false),
        }
        Ok(true)
    }
}

proptest! {
    /// Whatever each node sees and whenever it acts, at most one mesh is ever founded and nobody
    /// promises twice; and once all see each other, everybody ends in that mesh.
    #[test]
    fn every_interleaving_ends_in_one_mesh(
        founders in prop::sample::select(vec![1usize, 2, 3]),
        joiners in 0usize..3,
        schedule in prop::collection::vec((0usize..6, any::<u8>()), 0..100),
    ) {
        let mut world = World::new(founders, joiners);
        let count = world.nodes.len();
        for (at, seen) in schedule {
            world.act(at % count, seen)?;
        }
        let mut changed = true;
        while changed {
            changed = false;
            for at in 0..count {
                changed |= world.act(at, u8::MAX)?;
            }
        }
        let first = world.member[0];
        prop_assert!(first.is_some(), "nobody founded: {:?}", world.nodes);
        prop_assert!(world.member.iter().all(|mesh| *mesh == first), "{:?}", world.member);
    }
}
