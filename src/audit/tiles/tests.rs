use super::*;
use crate::{
    audit::merkle::{
        Frontier, consistency_plan, inclusion_plan, root_plan, verify_consistency, verify_inclusion,
    },
    crypto::entry_bytes::leaf_hash,
};

/// A log that grows by `step` leaves at a time, kept as tiles alone, with its roots.
fn log(size: u64, step: u64) -> (Tiles, Vec<[u8; 32]>) {
    let mut tiles = Tiles::new();
    let mut frontier = Frontier::default();
    let mut roots = vec![frontier.root()];
    while frontier.size() < size {
        let edge: Tiles = right_edge(frontier.size())
            .into_iter()
            .map(|id| (id, tiles[&id].clone()))
            .collect();
        let mut nodes = Vec::new();
        for _ in 0..step.min(size - frontier.size()) {
            let leaf = leaf_hash(&frontier.size().to_be_bytes());
            frontier.append(leaf, |id, hash| nodes.push((id, hash)));
            roots.push(frontier.root());
        }
        tiles.extend(grow(&edge, &nodes).unwrap());
    }
    (tiles, roots)
}

#[test]
fn tiles_are_as_wide_as_the_specification_says_of_seventy_thousand() {
    let (tiles, _) = log(70_000, 1_000);
    let widths = |level| -> Vec<usize> {
        tiles
            .iter()
            .filter(|(id, _)| id.level == level)
            .map(|(_, tile)| tile.len() / 32)
            .collect()
    };
    let zero = widths(0);
    assert_eq!((zero.len(), zero[273]), (274, 112));
    assert!(zero[..273].iter().all(|width| *width == 256));
    assert_eq!(widths(1), [256, 17]);
    assert_eq!(widths(2), [1]);
    assert!(
        tiles
            .iter()
            .all(|(id, tile)| id.width(70_000) == tile.len() as u64 / 32)
    );
    assert_eq!(TileId { level: 1, index: 2 }.width(70_000), 0);
}

#[test]
fn tiles_do_not_depend_on_how_the_log_grew() {
    assert_eq!(log(1_500, 1).0, log(1_500, 700).0);
    assert_eq!(log(1_500, 1_500).0, log(1_500, 256).0);
}

#[test]
fn every_inclusion_proof_from_tiles_holds_and_only_at_its_place() {
    let (tiles, roots) = log(600, 77);
    for size in [1, 2, 3, 255, 256, 257, 511, 512, 513, 600] {
        for index in (0..size).step_by(if size > 20 { 13 } else { 1 }) {
            let plan = inclusion_plan(index, size).unwrap();
            let proof = plan.assemble(|id| node(&tiles, id)).unwrap();
            let leaf = leaf_hash(&index.to_be_bytes());
            let root = &roots[size as usize];
            assert!(
                verify_inclusion(&leaf, index, size, &proof, root),
                "{index} of {size}"
            );
            assert!(!verify_inclusion(&leaf, index ^ 1, size, &proof, root) || size == 1);
        }
    }
}

#[test]
fn every_consistency_proof_and_every_root_from_tiles_holds() {
    let (tiles, roots) = log(600, 256);
    for second in [1, 2, 255, 256, 257, 512, 599, 600] {
        let root = root_plan(second).assemble(|id| node(&tiles, id)).unwrap();
        assert_eq!(root, [roots[second as usize]]);
        for first in (0..=second).step_by(if second > 20 { 31 } else { 1 }) {
            let plan = consistency_plan(first, second).unwrap();
            let proof = plan.assemble(|id| node(&tiles, id)).unwrap();
            let (old, new) = (&roots[first as usize], &roots[second as usize]);
            assert!(
                verify_consistency(first, second, &proof, old, new),
                "{first} to {second}"
            );
        }
    }
}

#[test]
fn a_proof_reads_few_tiles() {
    for (index, size) in [(0, 70_000), (69_999, 70_000), (65_535, 70_000), (30_000, 70_000)] {
        assert!(tiles_of(&inclusion_plan(index, size).unwrap()).len() <= 5);
    }
}

#[test]
fn a_tile_that_was_cut_or_lost_is_named() {
    let (mut tiles, _) = log(300, 300);
    let id = TileId { level: 0, index: 1 };
    tiles.get_mut(&id).unwrap().truncate(32 * 43);
    let mut frontier = Frontier::default();
    let mut nodes = Vec::new();
    for number in 0..301_u64 {
        nodes.clear();
        frontier.append(leaf_hash(&number.to_be_bytes()), |id, hash| {
            nodes.push((id, hash))
        });
    }
    assert_eq!(grow(&tiles, &nodes), Err(BrokenTile(id)));
    assert_eq!(node(&tiles, NodeId { level: 0, index: 299 }), Err(BrokenTile(id)));
    tiles.remove(&id);
    assert_eq!(grow(&tiles, &nodes), Err(BrokenTile(id)));
}

#[test]
fn every_path_of_the_specification_is_read_and_no_other() {
    let read = |path: &str| {
        path.parse::<TilePath>()
            .map(|path| (path.level, path.index, path.width))
    };
    assert_eq!(read("0/000"), Ok((Some(0), 0, 256)));
    assert_eq!(read("0/x001/x234/067"), Ok((Some(0), 1_234_067, 256)));
    assert_eq!(read("1/x001/000.p/17"), Ok((Some(1), 1_000, 17)));
    assert_eq!(read("entries/273.p/112"), Ok((None, 273, 112)));
    for path in [
        "",
        "0",
        "0/",
        "0/0",
        "0/00",
        "0/0000",
        "00/000",
        "8/000",
        "-1/000",
        "0/x000/001",
        "0/001/001",
        "0/x001",
        "0/x1/001",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/000.p/",
        "0/000.p",
        "0/000/",
        "/0/000",
        "0//000",
        "0/000.p/1/",
        "data/000",
        "entries",
        "0/+01",
        "0/x999/x999/x999/x999/x999/x999/999",
        "0/٠٠٠",
    ] {
        assert_eq!(read(path), Err(NotATile), "{path}");
    }
}

#[test]
fn a_bundle_is_each_entry_behind_its_length() {
    let bundle_of = |entries: &[&[u8]]| bundle(entries.iter().copied());
    assert_eq!(bundle_of(&[b"ab", b""]).unwrap(), b"\0\x02ab\0\0");
    assert_eq!(bundle_of(&[&vec![b'x'; 65_535]]).unwrap().len(), 65_537);
    assert_eq!(bundle_of(&[&vec![b'x'; 65_536]]), None);
}

/// Made by `tests/vectors/generate.py` from the recursive definitions of the RFC.
#[test]
fn the_known_answers_of_another_implementation_hold() {
    let known: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/vectors/audit_proofs.json")).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    let hashes = |value: &serde_json::Value| -> Vec<[u8; 32]> {
        let list = value.as_array().unwrap().iter();
        list.map(|hash| crate::crypto::entry_bytes::parse_hex32(hash.as_str().unwrap()).unwrap())
            .collect()
    };
    let hex = crate::crypto::digest::hex;
    let mut tiles = Tiles::new();
    let mut frontier = Frontier::default();
    let mut roots = vec![frontier.root()];
    for index in 0..600_u64 {
        let mut nodes = Vec::new();
        frontier.append(leaf_hash(index.to_string().as_bytes()), |id, hash| {
            nodes.push((id, hash))
        });
        let grown = grow(&tiles, &nodes).unwrap();
        tiles.extend(grown);
        roots.push(frontier.root());
    }
    for case in known["roots"].as_array().unwrap() {
        assert_eq!(
            hex(&roots[number(&case["size"]) as usize]),
            case["root"].as_str().unwrap()
        );
    }
    for case in known["inclusion"].as_array().unwrap() {
        let plan = inclusion_plan(number(&case["index"]), number(&case["size"])).unwrap();
        assert_eq!(
            plan.assemble(|id| node(&tiles, id)).unwrap(),
            hashes(&case["hashes"]),
            "{case}"
        );
    }
    for case in known["consistency"].as_array().unwrap() {
        let plan = consistency_plan(number(&case["from"]), number(&case["to"])).unwrap();
        assert_eq!(
            plan.assemble(|id| node(&tiles, id)).unwrap(),
            hashes(&case["hashes"]),
            "{case}"
        );
    }
    for case in known["tiles"].as_array().unwrap() {
        let path: TilePath = case["path"].as_str().unwrap().parse().unwrap();
        let id = TileId {
            level: path.level.unwrap(),
            index: path.index,
        };
        let tile = &tiles[&id][..path.width as usize * 32];
        assert_eq!(
            hex(&crate::crypto::digest::sha256(tile)),
            case["sha256"].as_str().unwrap()
        );
    }
}
