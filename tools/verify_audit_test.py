#!/usr/bin/env python3
"""Runs the independent verifier on the shared vectors and on damaged copies of them.

    python3 tools/verify_audit_test.py        (POSTERN_LONG=1: every 7th bit of the export instead of every 911th)
"""
import io
import json
import os
import pathlib
import subprocess
import sys
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent
VECTORS = TOOLS.parent / "tests" / "vectors"
sys.path.insert(0, str(TOOLS))
import verify_audit as audit  # noqa: E402

EXPORT = (VECTORS / "audit_export.jsonl").read_bytes()
KEY = audit.Key((VECTORS / "audit_export.vkey").read_text())
KNOWN = json.loads((VECTORS / "audit.json").read_text())


def verify(export, kept=None):
    verifier = audit.Verifier(KEY, kept)
    verifier.read(io.BytesIO(export))
    return verifier


def names(verifier, line):
    return any(finding["at"].get("line") == line for finding in verifier.findings)


class KnownAnswers(unittest.TestCase):
    def test_entries_hash_and_roots_are_the_known_ones(self):
        tree = audit.Tree()
        self.assertEqual(tree.root().hex(), KNOWN["roots"][0]["root"])
        for entry, root in zip(KNOWN["entries"], KNOWN["roots"][1:]):
            raw = entry["bytes"].encode()
            audit.read_entry(raw)
            self.assertEqual(audit.hashlib.sha256(raw).hexdigest(), entry["hash"])
            self.assertEqual(audit.hashlib.sha256(b"\x00" + raw).hexdigest(), entry["leaf"])
            tree.append(raw)
            self.assertEqual((tree.size, tree.root().hex()), (root["size"], root["root"]))
        body, wrong = audit.Key(KNOWN["vkey"]).open(KNOWN["checkpoint_note"])
        self.assertEqual((body, wrong), (KNOWN["checkpoint_text"], None))
        self.assertEqual(audit.read_checkpoint(body)["root"], tree.root())

    def test_the_known_export_verifies_also_against_the_kept_checkpoint(self):
        body, wrong = KEY.open((VECTORS / "audit_export.kept").read_text(encoding="utf-8"))
        self.assertIsNone(wrong)
        kept = audit.read_checkpoint(body)
        self.assertEqual(verify(EXPORT, kept).findings, [])
        kept["root"] = bytes(32)
        self.assertEqual([finding["kind"] for finding in verify(EXPORT, kept).findings], ["rewritten"])


class Damage(unittest.TestCase):
    lines = EXPORT.splitlines(keepends=True)

    def test_flipped_bits_are_found_and_their_line_named(self):
        step = 7 if os.environ.get("POSTERN_LONG") else 911
        for bit in range(0, len(EXPORT) * 8, step):
            flipped = bytearray(EXPORT)
            flipped[bit // 8] ^= 1 << bit % 8
            verifier = verify(bytes(flipped))
            line = EXPORT.count(b"\n", 0, bit // 8) + 1
            self.assertTrue(names(verifier, line), f"bit {bit}: {verifier.findings}")

    def test_deleted_swapped_and_doubled_lines_are_found_and_named(self):
        for at in range(len(self.lines)):
            gone = self.lines[:at] + self.lines[at + 1:]
            self.assertTrue(names(verify(b"".join(gone)), at + 1), f"deleted {at + 1}")
            twice = self.lines[:at + 1] + self.lines[at:]
            self.assertTrue(names(verify(b"".join(twice)), at + 2), f"doubled {at + 1}")
            if at + 1 < len(self.lines):
                swapped = self.lines[:at] + [self.lines[at + 1], self.lines[at]] + self.lines[at + 2:]
                self.assertTrue(names(verify(b"".join(swapped)), at + 1), f"swapped {at + 1}")

    def test_truncation_is_found(self):
        for size in range(0, len(EXPORT), 997):
            self.assertIn("truncated", [finding["kind"] for finding in verify(EXPORT[:size]).findings])

    def test_another_key_does_not_verify(self):
        other = audit.Key(KNOWN["vkey"])
        other.id = b"\0\0\0\0"
        verifier = audit.Verifier(other)
        verifier.read(io.BytesIO(EXPORT))
        self.assertEqual([finding["kind"] for finding in verifier.findings], ["unsigned"])


class CommandLine(unittest.TestCase):
    def run_on(self, *args):
        done = subprocess.run([sys.executable, TOOLS / "verify_audit.py", *args], capture_output=True, text=True)
        return done.returncode

    def test_exit_codes_tell_verified_wrong_and_unusable_apart(self):
        export, vkey = VECTORS / "audit_export.jsonl", VECTORS / "audit_export.vkey"
        self.assertEqual(self.run_on(export, vkey, "--checkpoint", VECTORS / "audit_export.kept"), 0)
        self.assertEqual(self.run_on(vkey, vkey), 1)
        self.assertEqual(self.run_on(export, export), 2)

    def test_the_verifier_is_short_enough_to_be_read(self):
        self.assertLessEqual(len((TOOLS / "verify_audit.py").read_text().splitlines()), 300)


if __name__ == "__main__":
    unittest.main()
