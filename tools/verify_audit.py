#!/usr/bin/env python3
"""Verifies a Postern audit export, independently of Postern: docs/audit-log.md is all it was written from.

    python3 verify_audit.py EXPORT VKEY [--checkpoint KEPT] [--witness-key WITNESS] [--json]

EXPORT is the file `postern audit export` wrote, VKEY the log's public key (`name+id+base64` or a file that holds it),
KEPT a checkpoint of the same log that you kept elsewhere, WITNESS the public key of the witness that must have cosigned
the export. Exit codes: 0 verified, 1 something is wrong with the log, 2 it could not be checked. Needs Python 3.9 and
`cryptography`."""
import argparse, base64, datetime, hashlib, json, re, sys, unicodedata  # noqa: E401

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_ENTRY, MAX_LINE, MAX_INTEGER = 65_535, 1 << 20, (1 << 53) - 1
HIDDEN = [(0xad, 0xad), (0x34f, 0x34f), (0x61c, 0x61c), (0x115f, 0x1160), (0x17b4, 0x17b5), (0x180b, 0x180f),
          (0x200b, 0x200f), (0x2028, 0x202e), (0x2060, 0x206f), (0x3164, 0x3164), (0xfe00, 0xfe0f), (0xfeff, 0xfeff),
          (0xffa0, 0xffa0), (0xfff0, 0xfffb), (0x1bca0, 0x1bca3), (0x1d173, 0x1d17a), (0xe0000, 0xe0fff)]

class Bad(Exception): """The text is not what it should be."""

def require(kept, what):
    if not kept:
        raise Bad(what)

def canonical(value):
    """RFC 8785 for what occurs here: ASCII member names and integers only."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

def read_canonical(raw):
    """The value of bytes that are exactly its canonical form: refuses doubled members, blanks, other escapes."""
    try:
        value = json.loads(raw.decode("utf-8"))
        require(canonical(value) == raw, "not in canonical form")
    except (ValueError, RecursionError) as error:
        raise Bad("not JSON in UTF-8") from error
    return value

def text(longest=128):
    """One visible line: docs/audit-log.md section 2."""
    return lambda value: type(value) is str and len(value.encode()) <= longest and not any(
        unicodedata.category(c) == "Cc" or any(low <= ord(c) <= high for low, high in HIDDEN) for c in value)

def match(pattern):
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: type(value) is str and compiled.fullmatch(value) is not None

def typeid(prefix): return match(prefix + "_[0-7][0-9a-hjkmnp-tv-z]{25}")
def integer(least): return lambda value: type(value) is int and least <= value <= MAX_INTEGER
def one_of(*values): return lambda value: type(value) is str and value in values
def optional(rule): return lambda value: value is None or rule(value)
def items(rule): return lambda value: type(value) is list and len(value) <= 16 and all(map(rule, value))

def members(rules):
    return lambda value: type(value) is dict and value.keys() == rules.keys() and all(
        rule(value[name]) for name, rule in rules.items())

def epoch(value):
    return match("[0-9a-f]{8}:(0|[1-9][0-9]{0,18})")(value) and int(value[9:]) < 1 << 63

def time(value):
    try:
        form = match("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9][.][0-9]{3}Z")(value)
        return form and bool(datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ"))
    except ValueError:
        return False

HEX32, MAC = match("[0-9a-f]{64}"), match("[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
WRITER, DECIMAL = match("[A-Za-z0-9._:/-]{1,128}"), match("0|[1-9][0-9]{0,19}")
ENTRY = {
    "account_hash": optional(MAC), "action_hash": optional(MAC), "agent": optional(typeid("agt")),
    "approvals": items(members({"id": typeid("apr")})), "connector": optional(match("[a-z0-9][a-z0-9-]{0,39}")),
    "context_digest": optional(text()), "correlation": optional(text()),
    "decision": optional(members({"iss": text(256), "jti": text(), "outcome": one_of("allow", "deny", "escalate"),
                                  "sha256": HEX32})),
    "epoch": epoch, "generation": optional(integer(0)), "grant": optional(typeid("grt")), "id": typeid("ent"),
    "mode": optional(one_of("execute", "handle", "token", "raw")), "on_behalf": items(text()), "org": typeid("org"),
    "outcome": optional(text()), "policy": optional(members({"digest": text(), "id": text(), "version": text()})),
    "prev": HEX32, "reason": optional(text()), "schema": lambda value: type(value) is int and value == 1,
    "tool": optional(text()), "ts": time, "type": match("decision|release|outcome|dropped|refresh|connect|delegation|"
                                                        "revoke|upstream_revoke|session|admin|writer"),
    "user": optional(typeid("usr")), "writer": WRITER, "writer_seq": integer(1),
}

def read_entry(raw):
    require(len(raw) <= MAX_ENTRY, "longer than 65535 bytes")
    entry = read_canonical(raw)
    require(type(entry) is dict and entry.keys() == ENTRY.keys(), "unknown or missing member")
    for name, rule in ENTRY.items():
        require(rule(entry[name]), f"member `{name}` breaks its rule")
    return entry

def unbase64(value):
    try:
        raw = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise Bad("not base64") from error
    require(base64.b64encode(raw).decode() == value, "not canonical base64")
    return raw

class Key:
    """C2SP signed-note verifier key: name+id+base64(kind || public key); kind 1 signs, kind 4 cosigns with a time."""

    def __init__(self, line, kind=1):
        require(line.count("+") >= 2, "not a verifier key")
        self.name, claimed, blob = line.strip().split("+", 2)
        raw = unbase64(blob)
        require(len(raw) == 33 and raw[0] == kind and match(r"[^\s+]{1,512}")(self.name), "not an Ed25519 key")
        self.id = hashlib.sha256(self.name.encode() + b"\n" + raw).digest()[:4]
        require(self.id.hex() == claimed, "the key id is wrong")
        self.kind, self.public = kind, Ed25519PublicKey.from_public_bytes(raw[1:])

    def open(self, note):
        """(text, what is wrong with the signature or None); raises when it is no note at all."""
        at = note.rfind("\n\n")
        body, lines, signed, wrong = note[:at + 1], note[at + 2:], False, None
        plain = at >= 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", note)
        require(plain and lines.endswith("\n") and lines.count("\n") <= 64, "not a signed note")
        for line in lines[:-1].split("\n"):
            parsed = re.fullmatch(r"\u2014 ([^\s+]+) (\S+)", line)
            blob = unbase64(parsed[2]) if parsed else b""
            require(len(blob) >= 5, "not a signature line")
            if parsed[1] == self.name and blob[:4] == self.id:
                stamp = f"cosignature/v1\ntime {int.from_bytes(blob[4:12], 'big')}\n" if self.kind == 4 else ""
                signature = (blob[12:] if blob[4] < 128 else b"") if stamp else blob[4:]
                try:
                    self.public.verify(signature, (stamp + body).encode())
                    signed = True
                except InvalidSignature:
                    wrong = "bad_signature"
        return body, wrong or (None if signed else "unsigned")

def read_checkpoint(body):
    lines = body[:-1].split("\n")
    require(len(lines) >= 3 and lines[0] and DECIMAL(lines[1]) and int(lines[1]) < 1 << 64, "not a checkpoint")
    root, writers, last = unbase64(lines[2]), {}, ""
    require(len(root) == 32, "not a checkpoint")
    for line in lines[3:]:
        word, name, seq, digest = (line.split(" ") if line.count(" ") == 3 else [""] * 4)
        require(word == "writer" and WRITER(name) and DECIMAL(seq) and 0 < int(seq) < 1 << 64 and HEX32(digest)
                and last < name, "not a writer line")
        writers[name], last = (int(seq), bytes.fromhex(digest)), name
    return {"origin": lines[0], "size": int(lines[1]), "root": root, "writers": writers}

class Tree:
    """RFC 9162 section 2.1, only its right edge."""

    def __init__(self):
        self.size, self.peaks = 0, []

    def append(self, raw):
        node, index = hashlib.sha256(b"\x00" + raw).digest(), self.size
        while index & 1:
            node, index = hashlib.sha256(b"\x01" + self.peaks.pop() + node).digest(), index >> 1
        self.peaks.append(node)
        self.size += 1

    def root(self):
        node = self.peaks[-1] if self.peaks else hashlib.sha256(b"").digest()
        for left in reversed(self.peaks[:-1]):
            node = hashlib.sha256(b"\x01" + left + node).digest()
        return node

class Verifier:
    def __init__(self, key, kept=None, witness=None):
        self.key, self.kept, self.witness, self.tree, self.writers, self.findings = key, kept, witness, Tree(), {}, []
        self.line, self.next_index, self.epoch, self.state = 0, 0, None, "header"
        match_org = re.fullmatch(r".+/orgs/(org_[0-7][0-9a-hjkmnp-tv-z]{25})/log", key.name)
        self.org = match_org and match_org[1]

    def find(self, kind, explain, at=None):
        self.findings.append({"kind": kind, "at": {"line": self.line} if at is None else at, "explain": explain})

    def read(self, source):
        self.compare_kept()
        for line in iter(lambda: source.readline(MAX_LINE + 1), b""):
            self.line += 1
            if line.endswith(b"\n"):
                self.one(line[:-1])
            elif len(line) <= MAX_LINE:
                self.find("truncated", "the file ends in the middle of a line")
            else:
                self.find("bad_line", "the line is longer than any line of an export: stopped here")
                break
        self.line += 1
        if self.state != "end":
            self.find("truncated", "the file ends without a checkpoint")
        if self.kept and self.kept["size"] > self.tree.size:
            self.find("rewritten", f"the kept checkpoint is over {self.kept['size']} entries", {})

    def one(self, line):
        if self.state == "end":
            return self.find("trailing_data", "something follows the checkpoint")
        if self.state == "header":
            self.state = "entries"
            if line != canonical({"org": self.org, "origin": self.key.name, "postern_audit_export": 1}):
                self.find("bad_header", "the first line is not the header of an export of this key's log")
            if line.startswith(b'{"org":'):
                return
        at = line.rfind(b',"index":')
        index = line[at + 9:-1].decode("latin-1")
        if line.startswith(b'{"entry":') and at >= 9 and line.endswith(b"}") and DECIMAL(index):
            return self.entry(line[9:at], int(index))
        try:
            footer = read_canonical(line)
            require(members({"checkpoint": lambda note: type(note) is str})(footer), "")
        except Bad:
            return self.find("bad_line", "the line is neither an entry nor a checkpoint in canonical form")
        self.state = "end"
        return self.judge(footer["checkpoint"])

    def entry(self, raw, index):
        at = {"line": self.line, "index": index}
        if index != self.next_index:
            self.find("wrong_index", f"index {index} stands where {self.next_index} belongs", at)
        self.next_index = index + 1
        self.tree.append(raw)
        self.compare_kept()
        try:
            entry = read_entry(raw)
        except Bad as error:
            return self.find("bad_entry", f"not an entry as it was written: {error}", at)
        writer, seq = entry["writer"], entry["writer_seq"]
        at = {**at, "entry": entry["id"], "writer": writer}
        if entry["org"] != self.org:
            self.find("wrong_log", "the entry belongs to another org", at)
        now = (int(entry["epoch"][9:]), entry["epoch"][:8])
        if self.epoch and not (now[0] > self.epoch[0] or now == self.epoch):
            self.find("epoch_backward", f"epoch {entry['epoch']} stands behind a later one", at)
        self.epoch = now
        last, digest, before = self.writers.get(writer, (0, bytes(32), at))
        if seq > last + 1:
            self.find("writer_gap", f"entries {last + 1} to {seq - 1} of this writer are missing", at)
        elif seq <= last:
            self.find("writer_repeat", f"number {seq} comes again or too late: {last + 1} was due", at)
        elif bytes.fromhex(entry["prev"]) != digest:
            self.find("broken_chain", f"the entry was changed: {entry['id']} names another hash", before)
        self.writers[writer] = (seq, hashlib.sha256(raw).digest(), at)

    def judge(self, note):
        try:
            body, wrong = self.key.open(note)
            if wrong:
                self.find(wrong, "the checkpoint is not signed by this key")
            if self.witness and (wrong := self.witness.open(note)[1]):
                self.find("not_cosigned" if wrong == "unsigned" else "bad_cosignature", "not cosigned by the witness")
            checkpoint = read_checkpoint(body)
        except Bad as error:
            return self.find("bad_checkpoint", f"the checkpoint proves nothing: {error}")
        if checkpoint["origin"] != self.key.name:
            self.find("wrong_log", "the checkpoint is of another log than the key's")
        for name in sorted(self.writers.keys() | checkpoint["writers"].keys()):
            found, signed = self.writers.get(name), checkpoint["writers"].get(name)
            if found is None or signed != found[:2]:
                wanted = f"number {signed[0]} with another hash" if signed else "nothing"
                self.find("writer_head", f"of writer {name} the checkpoint commits to {wanted}, the file ends with "
                          f"{'number ' + str(found[0]) if found else 'nothing'}", found[2] if found else {"writer": name})
        if checkpoint["size"] != self.tree.size:
            self.find("wrong_size", f"the checkpoint is over {checkpoint['size']} entries, not {self.tree.size}")
        elif checkpoint["root"] != self.tree.root():
            self.find("wrong_root", "the root over the entries is not the one that was signed", {})

    def compare_kept(self):
        if self.kept and self.kept["size"] == self.tree.size and self.kept["root"] != self.tree.root():
            self.find("rewritten", f"the first {self.tree.size} entries are not those of the kept checkpoint", {})

def slurp(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read(MAX_LINE)

def read_key(given, kind=1): return Key(given if given.count("+") > 1 else slurp(given), kind)

def main():
    parser = argparse.ArgumentParser(description="Verifies a Postern audit export with the public key alone.")
    parser.add_argument("export"), parser.add_argument("vkey"), parser.add_argument("--checkpoint")
    parser.add_argument("--witness-key"), parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        key, witness, kept = read_key(args.vkey), args.witness_key and read_key(args.witness_key, 4), None
        if args.checkpoint:
            body, wrong = key.open(slurp(args.checkpoint))
            kept = read_checkpoint(body)
            require(not wrong and kept["origin"] == key.name, "the kept checkpoint is not one of this log's key")
        verifier = Verifier(key, kept, witness)
        with open(args.export, "rb") as source:
            verifier.read(source)
    except (Bad, OSError, ValueError) as error:
        print(f"verify_audit: {error}", file=sys.stderr)
        return 2
    root, code = base64.b64encode(verifier.tree.root()).decode(), 1 if verifier.findings else 0
    report = {"verified": not code, "entries": verifier.tree.size, "root": root, "findings": verifier.findings}
    print(json.dumps(report) if args.json else f"{'NOT verified' if code else 'Verified'}: "
          f"{verifier.tree.size} entries, root {root}")
    for finding in verifier.findings if not args.json else []:
        place = ", ".join(f"{name} {value}" for name, value in finding["at"].items()) or "the log as a whole"
        print(f"- {place}: {finding['explain']}")
    return code

if __name__ == "__main__":
    sys.exit(main())
