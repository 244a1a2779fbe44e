#!/usr/bin/env python3
"""Checks a proof of Postern's log with the log's public key alone (docs/audit-log.md section 9).

    verify_proof.py inclusion PROOF.json ENTRY VKEY      that the entry is in the log that was signed
    verify_proof.py growth PROOF.json OLDER VKEY         that the log of an older checkpoint is the beginning of it

PROOF.json is the answer of /v1/audit/entries/{id}/proof or /v1/audit/consistency, ENTRY the entry's bytes as hashed,
OLDER a checkpoint, VKEY the key: each a file, the key also as text. Ends with 0 (holds), 1 (does not), 2 (unusable).
"""
import hashlib
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import verify_audit as audit  # noqa: E402


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def inclusion_root(leaf, index, size, proof):
    """RFC 9162 section 2.1.3.2, read as a recursion: the root the proof leads to."""
    audit.require(0 <= index < size, "an index behind the end")
    if size == 1:
        audit.require(not proof, "the proof is too long")
        return leaf
    audit.require(proof, "the proof is too short")
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return node(inclusion_root(leaf, index, split, proof[:-1]), proof[-1])
    return node(proof[-1], inclusion_root(leaf, index - split, size - split, proof[:-1]))


def growth_roots(first, second, proof, whole, first_root):
    """RFC 9162 section 2.1.4.1, read as a recursion: the older and the newer root the proof leads to."""
    if first == second:
        audit.require(len(proof) == (0 if whole else 1), "the proof has another length")
        return (first_root, first_root) if whole else (proof[0], proof[0])
    audit.require(0 < first < second and proof, "the proof is too short")
    split = 1 << (second - 1).bit_length() - 1
    rest, last = proof[:-1], proof[-1]
    if first <= split:
        old, new = growth_roots(first, split, rest, whole, first_root)
        return old, node(new, last)
    old, new = growth_roots(first - split, second - split, rest, False, first_root)
    return node(last, old), node(last, new)


def signed(note, key):
    body, wrong = key.open(note)
    checkpoint = audit.read_checkpoint(body)
    audit.require(not wrong and checkpoint["origin"] == key.name, "not a checkpoint of this key's log")
    return checkpoint


def check(kind, answer, other, key):
    checkpoint = signed(answer["checkpoint"], key)
    proof = [audit.unbase64(text) for text in answer["hashes"]]
    audit.require(all(len(hash) == 32 for hash in proof), "a hash has another length")
    if kind == "inclusion":
        leaf = hashlib.sha256(b"\x00" + other).digest()
        audit.require(answer["size"] == checkpoint["size"], "the proof is of another size than the checkpoint")
        return inclusion_root(leaf, answer["index"], answer["size"], proof) == checkpoint["root"]
    older = signed(other.decode(), key)
    audit.require((answer["from"], answer["to"]) == (older["size"], checkpoint["size"]), "the proof is of other sizes")
    if older["size"] == 0:
        return not proof
    roots = growth_roots(older["size"], checkpoint["size"], proof, True, older["root"])
    return roots == (older["root"], checkpoint["root"])


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in ("inclusion", "growth"):
        print(__doc__, file=sys.stderr)
        return 2
    _, kind, answer, other, vkey = sys.argv
    try:
        key = audit.Key(vkey if vkey.count("+") > 1 else pathlib.Path(vkey).read_text(encoding="utf-8"))
        answer, other = json.loads(pathlib.Path(answer).read_bytes()), pathlib.Path(other).read_bytes()
        holds = check(kind, answer, other, key)
    except audit.Bad as error:
        print(f"does NOT hold: {error}")
        return 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"verify_proof: cannot be checked: {error}", file=sys.stderr)
        return 2
    print("holds" if holds else "does NOT hold: it leads to another root")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
