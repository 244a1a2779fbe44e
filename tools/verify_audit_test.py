#!/usr/bin/env python3
"""Runs the independent verifier on the shared vectors and on damaged copies of them.

    python3 tools/verify_audit_test.py

With POSTERN_LONG=1 the export that is damaged has 200 entries and not the 60 of the shared one, every bit of it is
flipped and not every 97th, and any two lines are swapped and any run of lines deleted, not some.
"""
import ast
import base64
import copy
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TOOLS = pathlib.Path(__file__).resolve().parent
VECTORS = TOOLS.parent / "tests" / "vectors"
sys.path.insert(0, str(TOOLS))
import verify_audit as audit  # noqa: E402

LONG = bool(os.environ.get("POSTERN_LONG"))
SHARED = (VECTORS / "audit_export.jsonl").read_bytes()
KEY = audit.Key((VECTORS / "audit_export.vkey").read_text())
KNOWN = json.loads((VECTORS / "audit.json").read_text())
# The key that signs (tests/vectors/audit.json says which), as an operator has it.
SIGNER = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
# Above all entries, the header.
ABOVE = 2
# What could bring in code that no import names.
LOADERS = {"__import__", "importlib", "import_module", "runpy", "exec", "eval", "ctypes", "subprocess"}


def verify(export, kept=None):
    verifier = audit.Verifier(KEY, kept)
    verifier.read(io.BytesIO(export))
    return verifier


def names(verifier, line):
    return any(finding["at"].get("line") == line for finding in verifier.findings)


def kinds(verifier):
    return [finding["kind"] for finding in verifier.findings]


def states():
    """The verifier before each line, and where the line begins. It reads in one direction: what it was before a line is
    the same for whatever is wrong in it or behind it."""
    verifier, start = audit.Verifier(KEY), 0
    for line in LINES:
        yield start, verifier
        verifier, start = going_on(verifier), start + len(line)
        verifier.line += 1
        verifier.one(line[:-1])


def going_on(verifier):
    """The same verifier, of which the first one knows nothing."""
    other = copy.copy(verifier)
    other.tree = copy.copy(verifier.tree)
    other.tree.peaks = list(verifier.tree.peaks)
    other.writers, other.findings = dict(verifier.writers), list(verifier.findings)
    return other


class UntilNamed:
    """A file that ends once a line is named: what is behind it makes no difference any more."""

    def __init__(self, raw, verifier, line):
        self.source, self.verifier, self.line = io.BytesIO(raw), verifier, line

    def readline(self, most):
        return b"" if names(self.verifier, self.line) else self.source.readline(most)


def chained(entries):
    """What an operator writes who holds all the keys: each entry names the hash of its writer's one before. Members are
    put in as they are; bytes take the place of the whole entry."""
    heads, written = {}, []
    for entry in entries:
        if type(entry) is bytes:
            written.append(entry)
            continue
        seq, prev = heads.get(entry["writer"], (0, bytes(32)))
        raw = audit.canonical({**entry, "prev": prev.hex(), "writer_seq": seq + 1})
        heads[entry["writer"]] = (seq + 1, audit.hashlib.sha256(raw).digest())
        written.append(raw)
    return written, heads


def note_over(entries, heads):
    """The checkpoint over these, signed."""
    tree = audit.Tree()
    for raw in entries:
        tree.append(raw)
    lines = [KEY.name, str(tree.size), base64.b64encode(tree.root()).decode()]
    lines += [f"writer {name} {seq} {digest.hex()}" for name, (seq, digest) in sorted(heads.items())]
    body = "".join(line + "\n" for line in lines)
    blob = base64.b64encode(KEY.id + SIGNER.sign(body.encode())).decode()
    return f"{body}\n\u2014 {KEY.name} {blob}\n"


def entries_of(export):
    """As bytes."""
    return [line[len(b'{"entry":'):line.rindex(b',"index":')] for line in export.splitlines()[1:-1]]


def export_of(entries, note):
    lines = [SHARED.splitlines()[0]]
    lines += [b'{"entry":%b,"index":%d}' % (raw, index) for index, raw in enumerate(entries)]
    lines.append(audit.canonical({"checkpoint": note}))
    return b"".join(line + b"\n" for line in lines)


def lengthened(export, count):
    """The log of an export, gone on with to so many entries: the same again and again, at later epochs and times."""
    known = [json.loads(raw) for raw in entries_of(export)]
    incarnation, epochs = known[-1]["epoch"].split(":")
    entries = []
    for number in range(count):
        turn, at = divmod(number, len(known))
        entry = known[at]
        counter = int(entry["epoch"].split(":")[1]) + turn * int(epochs)
        entries.append({**entry, "epoch": f"{incarnation}:{counter}", "id": f"{entry['id'][:-10]}{turn}{entry['id'][-9:]}",
                        "ts": entry["ts"].replace("T11:", f"T{11 + turn}:")})
    written, heads = chained(entries)
    return export_of(written, note_over(written, heads))


def parsed():
    return [json.loads(raw) for raw in ENTRIES]


EXPORT = lengthened(SHARED, 200) if LONG else SHARED
LINES = EXPORT.splitlines(keepends=True)
ENTRIES = entries_of(EXPORT)
NOTE = json.loads(LINES[-1])["checkpoint"]


def kept_at_the_end():
    return audit.read_checkpoint(KEY.open(NOTE)[0])


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
        self.assertEqual(verify(SHARED, kept).findings, [])
        kept["root"] = bytes(32)
        self.assertEqual([finding["kind"] for finding in verify(SHARED, kept).findings], ["rewritten"])

    def test_the_export_that_is_damaged_below_is_a_whole_one(self):
        self.assertEqual(len(ENTRIES), 200 if LONG else 60)
        self.assertEqual(ENTRIES[:60], entries_of(SHARED))
        self.assertEqual(len({entry["id"] for entry in parsed()}), len(ENTRIES))
        self.assertEqual(verify(EXPORT, kept_at_the_end()).findings, [])

    def test_a_note_has_64_signatures_at_most_and_names_without_spaces_or_plus(self):
        """As `src/audit/note.rs` has it."""
        note = (VECTORS / "audit_export.kept").read_text(encoding="utf-8")
        body, ours = note.rsplit("\n\n", 1)
        foreign = "\u2014 other.example AAAAAAAA\n"
        self.assertIsNone(KEY.open(f"{body}\n\n{foreign * 63}{ours}")[1])
        odd = [foreign.replace("other.example", name) for name in ("a+b", "a\u00a0b", "a\u2003b", "")]
        for lines in [foreign * 64, *odd]:
            with self.assertRaises(audit.Bad, msg=lines[:40]):
                KEY.open(f"{body}\n\n{lines}{ours}")


class Damage(unittest.TestCase):
    def test_flipped_bits_are_found_and_their_line_named(self):
        step, bit = 1 if LONG else 97, 0
        for line, (start, before) in enumerate(states(), 1):
            rest = bytearray(EXPORT[start:])
            while bit < (start + len(LINES[line - 1])) * 8:
                at, mask = bit // 8 - start, 1 << bit % 8
                rest[at] ^= mask
                verifier = going_on(before)
                verifier.read(UntilNamed(bytes(rest), verifier, line))
                rest[at] ^= mask
                self.assertTrue(names(verifier, line), f"bit {bit}: {verifier.findings}")
                bit += step
        self.assertGreaterEqual(bit, len(EXPORT) * 8)

    def test_deleted_swapped_and_doubled_lines_are_found_and_named(self):
        for at in range(len(LINES)):
            gone = LINES[:at] + LINES[at + 1:]
            self.assertTrue(names(verify(b"".join(gone)), at + 1), f"deleted {at + 1}")
            twice = LINES[:at + 1] + LINES[at:]
            self.assertTrue(names(verify(b"".join(twice)), at + 2), f"doubled {at + 1}")
            if at + 1 < len(LINES):
                swapped = LINES[:at] + [LINES[at + 1], LINES[at]] + LINES[at + 2:]
                self.assertTrue(names(verify(b"".join(swapped)), at + 1), f"swapped {at + 1}")

    def test_lines_far_apart_swapped_and_runs_of_lines_deleted_are_found_and_named(self):
        step = 1 if LONG else 13
        for at, (_, before) in enumerate(states()):
            for other in range(at + 1, len(LINES), step):
                between = LINES[at + 1:other]
                verifier = going_on(before)
                export = b"".join([LINES[other], *between, LINES[at], *LINES[other + 1:]])
                verifier.read(UntilNamed(export, verifier, other + 1))
                found = names(verifier, at + 1) and names(verifier, other + 1)
                self.assertTrue(found, f"swapped {at + 1} and {other + 1}: {verifier.findings}")
            for end in range(at + 1, len(LINES) + 1, step):
                verifier = going_on(before)
                verifier.read(UntilNamed(b"".join(LINES[end:]), verifier, at + 1))
                self.assertTrue(names(verifier, at + 1), f"deleted {at + 1} to {end}: {verifier.findings}")

    def test_every_truncation_is_found_and_the_line_it_ends_in_named(self):
        for line, (start, before) in enumerate(states(), 1):
            for size in range(len(LINES[line - 1])):
                verifier = going_on(before)
                verifier.read(io.BytesIO(EXPORT[start:start + size]))
                last = verifier.findings[-1]
                self.assertEqual((last["kind"], names(verifier, line)), ("truncated", True), f"{start + size} bytes")

    def test_another_key_does_not_verify(self):
        other = audit.Key(KNOWN["vkey"])
        other.id = b"\0\0\0\0"
        verifier = audit.Verifier(other)
        verifier.read(io.BytesIO(EXPORT))
        self.assertEqual(kinds(verifier), ["unsigned"])


class Forks(unittest.TestCase):
    """What its own key signs, and what somebody kept who has seen another story."""

    def forked(self, at):
        entries = parsed()
        entries[at]["reason"] = "another story"
        written, heads = chained(entries)
        return written, note_over(written, heads)

    def test_an_export_written_and_signed_here_is_the_shared_one(self):
        written, heads = chained([json.loads(raw) for raw in entries_of(SHARED)])
        self.assertEqual(export_of(written, note_over(written, heads)), SHARED)

    def test_a_fork_at_any_entry_is_found_by_whoever_kept_a_checkpoint_behind_it(self):
        for at in range(len(ENTRIES)):
            written, note = self.forked(at)
            export = export_of(written, note)
            # By itself it is a log like any other.
            self.assertEqual(verify(export).findings, [], at)
            self.assertEqual(kinds(verify(export, kept_at_the_end())), ["rewritten"], at)

    def test_a_fork_behind_the_kept_checkpoint_contradicts_nobody(self):
        kept = audit.read_checkpoint(KEY.open((VECTORS / "audit_export.kept").read_text(encoding="utf-8"))[0])
        for at, found in [(kept["size"] - 1, ["rewritten"]), (kept["size"], [])]:
            self.assertEqual(kinds(verify(export_of(*self.forked(at)), kept)), found, at)

    def test_a_log_shorter_than_the_kept_checkpoint_is_found(self):
        written, heads = chained(parsed()[:-1])
        export = export_of(written, note_over(written, heads))
        self.assertEqual(verify(export).findings, [])
        self.assertEqual(kinds(verify(export, kept_at_the_end())), ["rewritten"])

    def test_an_entry_spliced_in_from_a_fork_is_found_and_its_line_named(self):
        for at in range(len(ENTRIES)):
            spliced = list(ENTRIES)
            spliced[at] = self.forked(at)[0][at]
            verifier = verify(export_of(spliced, NOTE))
            self.assertTrue(names(verifier, at + ABOVE) and "wrong_root" in kinds(verifier), verifier.findings)

    def test_the_end_of_a_fork_behind_an_honest_beginning_is_found_and_the_seam_named(self):
        for at in range(len(ENTRIES)):
            written, note = self.forked(at)
            # The seam is behind the entry that tells the two stories apart, in its writer's chain.
            verifier = verify(export_of(ENTRIES[:at + 1] + written[at + 1:], note))
            self.assertTrue(names(verifier, at + ABOVE) and "wrong_root" in kinds(verifier), verifier.findings)

    def test_the_checkpoint_of_a_fork_under_the_honest_entries_is_found(self):
        for at in range(len(ENTRIES)):
            verifier = verify(export_of(ENTRIES, self.forked(at)[1]))
            self.assertTrue({"wrong_root", "writer_head"} <= set(kinds(verifier)), verifier.findings)


# No entry has these, for they are replaced when one is made: whoever shows the log shows one visible line.
HOSTILE = [
    "\0", "a\0b", "\x1b[2J\x1b[31mred", "\u202etxt.exe\u2066", "\u200b\ufeff", "line\nbreak\r\n", "\x85\x9b31m",
    "\u2028", "\U000e0041", "soft\xadhyphen", "x" * 100_000, "日" * 43,
]
# Odd, and nothing else.
ODD = ["", "\",\"outcome\":\"allow", "\\u0000", "\\u{202e}", "e\u0301", "日本", "\U0001f600", "<script>", "x" * 128]


def place(name, text):
    """Puts a text into a member, which may lie within another one."""
    def put(entry):
        if name == "on_behalf":
            entry["on_behalf"] = [text] * 16
        elif name == "approvals":
            entry["approvals"] = [{"id": text}]
        elif "." in name:
            outer, inner = name.split(".")
            entry[outer] = {**(entry[outer] or {}), inner: text}
        else:
            entry[name] = text
    return put


TEXTS = ["context_digest", "correlation", "outcome", "reason", "tool", "on_behalf", "policy.digest", "policy.id",
         "policy.version", "decision.iss", "decision.jti"]


class HostileText(unittest.TestCase):
    """An operator with the key writes what Postern never would, and signs it."""

    # A release, which has every member.
    at = next(at for at, raw in enumerate(ENTRIES) if b'"type":"release"' in raw)

    def signed(self, change):
        entries = parsed()
        change(entries[self.at])
        return self.signed_over(entries)

    def signed_raw(self, raw):
        entries = parsed()
        entries[self.at] = raw
        return self.signed_over(entries)

    def signed_over(self, entries):
        written, heads = chained(entries)
        return export_of(written, note_over(written, heads))

    def refused(self, export, why):
        verifier = audit.Verifier(KEY)
        verifier.read(UntilNamed(export, verifier, self.at + ABOVE))
        named = [finding["kind"] for finding in verifier.findings if finding["at"].get("line") == self.at + ABOVE]
        self.assertTrue({"bad_entry", "bad_line"} & set(named), f"{why}: {verifier.findings}")
        return verifier

    def test_hidden_text_in_any_member_is_refused_and_named(self):
        members = set(audit.ENTRY) - {"decision", "policy", "prev", "writer_seq", "writer"}
        members |= set(TEXTS) | {"decision.outcome", "decision.sha256"}
        for name in sorted(members):
            for text in HOSTILE:
                # A URL may be longer than other text.
                if not (name == "decision.iss" and text == HOSTILE[-1]):
                    self.refused(self.signed(place(name, text)), f"{name} {text[:20]!r}")

    def test_hidden_text_as_a_writers_name_is_refused(self):
        for text in HOSTILE:
            export = self.signed(place("writer", text))
            self.refused(export, repr(text[:20]))

    def test_odd_text_is_text(self):
        for name in TEXTS:
            for text in ODD:
                self.assertEqual(verify(self.signed(place(name, text))).findings, [], f"{name} {text!r}")

    def test_bytes_that_are_no_canonical_text_are_refused_and_named(self):
        raw = ENTRIES[self.at]
        null = b'"reason":null'
        self.assertIn(null, raw)
        for text in [b'"a\xff\xfe\x00\x80b"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\u0061"',
                     b'"a\tb"', b"'a'", b'"a","reason":"b"', b"NaN", b"1e3", b"[" * 20_000, b'"a" ', b'{"a":1}']:
            self.refused(self.signed_raw(raw.replace(null, b'"reason":' + text)), text[:20])

    def test_a_line_longer_than_any_is_refused_and_not_kept(self):
        verifier = self.refused(self.signed(place("tool", "x" * (1 << 20))), "1 MB")
        self.assertIn("bad_line", kinds(verifier))

    def test_what_is_said_of_it_is_one_visible_line_each(self):
        for text in HOSTILE[:-2]:
            with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
                file.write(self.signed(place("tool", text)))
                file.flush()
                command = [sys.executable, TOOLS / "verify_audit.py", file.name, VECTORS / "audit_export.vkey"]
                done = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertTrue(all(line.isprintable() for line in done.stdout.split("\n")), repr(done.stdout))


class Witnessed(unittest.TestCase):
    """What a witness has cosigned: docs/audit-log.md section 13."""

    signer = Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
    public = b"\x04" + signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    id = audit.hashlib.sha256(b"witness.example/w1\n" + public).digest()[:4]
    vkey = f"witness.example/w1+{id.hex()}+{base64.b64encode(public).decode()}"

    def line(self, at, body):
        signature = self.signer.sign(f"cosignature/v1\ntime {at}\n{body}".encode())
        return f"\u2014 witness.example/w1 {base64.b64encode(self.id + at.to_bytes(8, 'big') + signature).decode()}\n"

    def found(self, *lines):
        verifier = audit.Verifier(KEY, None, audit.Key(self.vkey, 4))
        verifier.read(io.BytesIO(export_of(ENTRIES, NOTE + "".join(lines))))
        return kinds(verifier)

    def test_the_cosignature_of_just_this_head_is_asked_for(self):
        body = KEY.open(NOTE)[0]
        good = self.line(1_800_000_000, body)
        self.assertEqual(self.found(good), [])
        self.assertEqual(self.found(), ["not_cosigned"])
        self.assertEqual(self.found("\u2014 other.example/w1 AAAAAAAA\n"), ["not_cosigned"])
        older = KEY.open((VECTORS / "audit_export.kept").read_text(encoding="utf-8"))[0]
        self.assertEqual(self.found(self.line(1_800_000_000, older)), ["bad_cosignature"])
        self.assertEqual(self.found(good, self.line(1_800_000_001, older)), ["bad_cosignature"])
        blob = bytearray(base64.b64decode(good.split(" ")[2]))
        for at in range(4, len(blob)):
            blob[at] ^= 1
            changed = good.replace(good.split(" ")[2].strip(), base64.b64encode(blob).decode())
            self.assertEqual(self.found(changed), ["bad_cosignature"], at)
            blob[at] ^= 1

    def test_a_time_of_more_than_63_bits_is_none(self):
        """As `src/audit/cosignature.rs` has it."""
        body = KEY.open(NOTE)[0]
        self.assertEqual(self.found(self.line((1 << 63) - 1, body)), [])
        self.assertEqual(self.found(self.line(1 << 63, body)), ["bad_cosignature"])

    def test_the_key_of_a_log_is_none_of_a_witness(self):
        vkey = (VECTORS / "audit_export.vkey").read_text(encoding="utf-8")
        for line, kind in [(vkey, 4), (self.vkey, 1)]:
            with self.assertRaises(audit.Bad):
                audit.Key(line, kind)

    def test_the_command_line_asks_for_it(self):
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
            file.write(export_of(ENTRIES, NOTE + self.line(1, KEY.open(NOTE)[0])))
            file.flush()
            for export, code in [(file.name, 0), (VECTORS / "audit_export.jsonl", 1)]:
                command = [sys.executable, TOOLS / "verify_audit.py", export, VECTORS / "audit_export.vkey"]
                done = subprocess.run([*command, "--witness-key", self.vkey], capture_output=True, text=True)
                self.assertEqual(done.returncode, code, done.stdout)


class CommandLine(unittest.TestCase):
    def run_on(self, *args):
        done = subprocess.run([sys.executable, TOOLS / "verify_audit.py", *args], capture_output=True, text=True)
        return done.returncode

    def test_exit_codes_tell_verified_wrong_and_unusable_apart(self):
        export, vkey = VECTORS / "audit_export.jsonl", VECTORS / "audit_export.vkey"
        self.assertEqual(self.run_on(export, vkey, "--checkpoint", VECTORS / "audit_export.kept"), 0)
        self.assertEqual(self.run_on(vkey, vkey), 1)
        self.assertEqual(self.run_on(export, export), 2)

    def test_the_verifier_needs_python_and_cryptography_and_nothing_else(self):
        """Wherever the import stands; what is imported by name at run time would need one of these."""
        tree, needed = ast.parse((TOOLS / "verify_audit.py").read_text(encoding="utf-8")), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                needed |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.assertEqual(node.level, 0, f"line {node.lineno}: what lies beside it is nothing it may need")
                needed.add(node.module.partition(".")[0])
            elif isinstance(node, (ast.Name, ast.Attribute)):
                self.assertNotIn(getattr(node, "id", None) or getattr(node, "attr", None), LOADERS, f"line {node.lineno}")
        self.assertIn("cryptography", needed)
        self.assertEqual(needed - sys.stdlib_module_names - {"cryptography"}, set())
        self.assertEqual(needed & LOADERS, set())

    def test_the_verifier_is_short_enough_to_be_read(self):
        self.assertLessEqual(len((TOOLS / "verify_audit.py").read_text().splitlines()), 300)


if __name__ == "__main__":
    unittest.main()
