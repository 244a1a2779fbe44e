//! The tree and its proofs, held against the definition of RFC 6962 and the published test tree.

use std::{collections::HashMap, convert::Infallible};

use super::*;
use crate::crypto::entry_bytes::leaf_hash;

type Nodes = HashMap<NodeId, [u8; 32]>;

fn grow(leaves: &[[u8; 32]]) -> (Frontier, Nodes) {
    let mut nodes = Nodes::new();
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.append(*leaf, |id, hash| assert!(nodes.insert(id, hash).is_none()));
    }
    (frontier, nodes)
}

fn leaves(count: u64) -> Vec<[u8; 32]> {
    (0..count)
        .map(|number| leaf_hash(&number.to_be_bytes()))
        .collect()
}

// The recursive definitions of RFC 9162 §2.1.1, §2.1.3.1 and §2.1.4.1, word for word.
fn mth(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(half(leaves.len()));
            node_hash(&mth(left), &mth(right))
        }
    }
}

fn path(m: usize, leaves: &[[u8; 32]]) -> Vec<[u8; 32]> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = half(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, last) = if m < k {
        (path(m, left), mth(right))
    } else {
        (path(m - k, right), mth(left))
    };
    proof.push(last);
    proof
}

fn subproof(m: usize, leaves: &[[u8; 32]], whole: bool) -> Vec<[u8; 32]> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![mth(leaves)] };
    }
    let k = half(leaves.len());
    let (left, right) = leaves.split_at(k);
    let (mut proof, last) = if m <= k {
        (subproof(m, left, whole), mth(right))
    } else {
        (subproof(m - k, right, false), mth(left))
    };
    proof.push(last);
    proof
}

fn half(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn proof(plan: &ProofPlan, nodes: &Nodes) -> Vec<[u8; 32]> {
    plan.assemble(|id| Ok::<_, Infallible>(nodes[&id])).unwrap()
}

#[test]
fn the_roots_of_the_certificate_transparency_test_tree_hold() {
    let data: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::default();
    assert_eq!(hex(&frontier.root()), roots[0]);
    for (datum, root) in data.iter().zip(&roots[1..]) {
        frontier.append(leaf_hash(datum), |_, _| ());
        assert_eq!(hex(&frontier.root()), *root);
    }
}

#[test]
fn roots_equal_the_definition_for_all_sizes_to_130_and_some_beyond() {
    let leaves = leaves(70_000);
    for size in (0..=130).chain([255, 256, 257, 65_535, 65_536, 70_000]) {
        assert_eq!(
            grow(&leaves[..size]).0.root(),
            mth(&leaves[..size]),
            "size {size}"
        );
    }
}

#[test]
fn inclusion_proofs_equal_the_definition_and_hold_for_all_sizes_to_130() {
    let leaves = leaves(130);
    let (_, nodes) = grow(&leaves);
    for size in 1..=130_usize {
        let root = mth(&leaves[..size]);
        for index in 0..size {
            let (i, n) = (index as u64, size as u64);
            let proof = proof(&inclusion_plan(i, n).unwrap(), &nodes);
            assert_eq!(proof, path(index, &leaves[..size]), "{index} of {size}");
            assert!(verify_inclusion(&leaves[index], i, n, &proof, &root));
            assert!(!verify_inclusion(&leaves[index], i ^ 1, n, &proof, &root) || size == 1);
        }
        assert!(inclusion_plan(size as u64, size as u64).is_none());
    }
}

#[test]
fn consistency_proofs_equal_the_definition_and_hold_for_all_sizes_to_130() {
    let leaves = leaves(130);
    let (_, nodes) = grow(&leaves);
    let roots: Vec<_> = (0..=130).map(|size| mth(&leaves[..size])).collect();
    for second in 1..=130_usize {
        for first in 1..=second {
            let (m, n) = (first as u64, second as u64);
            let proof = proof(&consistency_plan(m, n).unwrap(), &nodes);
            assert_eq!(
                proof,
                subproof(first, &leaves[..second], true),
                "{first} in {second}"
            );
            assert!(verify_consistency(m, n, &proof, &roots[first], &roots[second]));
            if first < second {
                assert!(!verify_consistency(
                    m,
                    n,
                    &proof,
                    &roots[first - 1],
                    &roots[second]
                ));
                assert!(!verify_consistency(
                    m,
                    n,
                    &proof,
                    &roots[first],
                    &roots[second - 1]
                ));
                assert!(!verify_consistency(n, m, &proof, &roots[second], &roots[first]));
            }
        }
        assert!(consistency_plan(second as u64 + 1, second as u64).is_none());
    }
}

#[test]
fn every_tree_is_consistent_with_the_empty_one_and_with_itself_only_by_an_empty_proof() {
    let root = mth(&leaves(3));
    assert!(verify_consistency(0, 3, &[], &empty_root(), &root));
    assert!(verify_consistency(0, 0, &[], &empty_root(), &empty_root()));
    assert!(verify_consistency(3, 3, &[], &root, &root));
    assert!(!verify_consistency(0, 0, &[], &root, &root));
    assert!(!verify_consistency(0, 3, &[], &root, &root));
    assert!(!verify_consistency(3, 3, &[], &root, &empty_root()));
    assert!(!verify_consistency(3, 3, &[root], &root, &root));
    assert!(!verify_consistency(2, 3, &[], &root, &root));
}

#[test]
fn a_frontier_survives_storage_and_a_contradictory_one_is_refused() {
    let (mut frontier, _) = grow(&leaves(11));
    let text = serde_json::to_string(&frontier).unwrap();
    let mut restored: Frontier = serde_json::from_str(&text).unwrap();
    assert_eq!(restored, frontier);
    for tree in [&mut frontier, &mut restored] {
        tree.append(leaf_hash(b"next"), |_, _| ());
    }
    assert_eq!(restored.root(), frontier.root());
    assert!(serde_json::from_str::<Frontier>(&text.replace(":11", ":12")).is_err());
}

proptest::proptest! {
    #[test]
    fn a_changed_inclusion_proof_does_not_hold(
        size in 2_u64..2_000, seed: u64, at: proptest::sample::Index, bit in 0_usize..256,
    ) {
        let leaves = leaves(size);
        let (frontier, nodes) = grow(&leaves);
        let index = seed % size;
        let leaf = leaves[usize::try_from(index).unwrap()];
        let root = frontier.root();
        let good = proof(&inclusion_plan(index, size).unwrap(), &nodes);
        proptest::prop_assert!(verify_inclusion(&leaf, index, size, &good, &root));
        let mut flipped = good.clone();
        flipped[at.index(good.len())][bit / 8] ^= 1 << (bit % 8);
        proptest::prop_assert!(!verify_inclusion(&leaf, index, size, &flipped, &root));
        proptest::prop_assert!(!verify_inclusion(&leaf, index, size, &good[1..], &root));
        let longer = [good.as_slice(), &[root]].concat();
        proptest::prop_assert!(!verify_inclusion(&leaf, index, size, &longer, &root));
    }

    #[test]
    fn a_changed_consistency_proof_does_not_hold(
        second in 3_u64..2_000, seed: u64, at: proptest::sample::Index, bit in 0_usize..256,
    ) {
        let leaves = leaves(second);
        let first = 1 + seed % (second - 1);
        let (new, nodes) = grow(&leaves);
        let (old, _) = grow(&leaves[..usize::try_from(first).unwrap()]);
        let good = proof(&consistency_plan(first, second).unwrap(), &nodes);
        proptest::prop_assert!(verify_consistency(first, second, &good, &old.root(), &new.root()));
        let mut flipped = good.clone();
        flipped[at.index(good.len())][bit / 8] ^= 1 << (bit % 8);
        proptest::prop_assert!(!verify_consistency(first, second, &flipped, &old.root(), &new.root()));
        let longer = [good.as_slice(), &[new.root()]].concat();
        proptest::prop_assert!(!verify_consistency(first, second, &longer, &old.root(), &new.root()));
    }
}
