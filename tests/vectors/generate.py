#!/usr/bin/env python3
"""Writes the known answers of docs/crypto.md, independently of the Rust code.

Python's own hashes, OpenSSL's AES-GCM and signatures through the `cryptography` package, GHASH by hand for the two-key
ciphertext. Run it only to add cases: a changed answer is a changed format. Output is deterministic but for ES256
signatures, which are kept from the file if they still verify.
"""
import base64, hashlib, hmac, json, os, struct

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strict_json_cases import ACCEPTED, REJECTED

HERE = os.path.dirname(os.path.abspath(__file__))


def write(name, about, **content):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as file:
        json.dump({"about": about, **content}, file, indent=1, ensure_ascii=True)
        file.write("\n")


def sha(data):
    return hashlib.sha256(data).digest()


def expand(prk, info, length):
    """RFC 5869 section 2.3."""
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:length]


def f(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(data)) + data


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jcs(value):
    """Enough of RFC 8785 for the documents below: ASCII names, no fractions."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def typeid(prefix, number):
    digits = ""
    for _ in range(26):
        digits, number = "0123456789abcdefghjkmnpqrstvwxyz"[number & 31] + digits, number >> 5
    return f"{prefix}_{digits}"


def fill(first):
    return bytes((first + i) % 256 for i in range(32))


# ---- places -------------------------------------------------------------------------------------------------------
FULL = {
    "org": typeid("org", 0x0188BAC74AFA78AABC3BBD1EEF28D881), "user": typeid("usr", 0x0188BAC74AFA78AABC3BBD1EEF28D882),
    "connector": "acme-mail", "account": "acct-7731", "row": typeid("grt", 0x0188BAC74AFA78AABC3BBD1EEF28D883),
    "kind": "refresh_token", "binding": sha(b"binding").hex(), "generation": 7,
}
BARE = {"org": "", "user": "", "connector": "", "account": "", "row": typeid("key", 5), "kind": "instance:notary",
        "binding": "", "generation": 1}
WIDE = {**FULL, "account": "z\u00fcrich/\u5f20\u4f1f \U0001f600", "kind": "entry", "generation": 2**64 - 1}


def aad(place, prefix=""):
    parts = ["postern/aad/1", place["org"], place["user"], place["connector"], place["account"], place["row"],
             prefix + place["kind"], bytes.fromhex(place["binding"])]
    return b"".join(f(part) for part in parts) + struct.pack(">Q", place["generation"])


write("aad.json", "crypto.md section 2: the place of a secret, and of its wrapped DEK.", cases=[
    {"name": name, "aad": place, "encoded": aad(place).hex(), "encoded_for_dek": aad(place, "dek:").hex()}
    for name, place in [("every part", FULL), ("absent parts are empty", BARE), ("beyond ASCII, last generation", WIDE)]])


# ---- sealed secrets -----------------------------------------------------------------------------------------------
def seal_keys(dek, place):
    place_hash = sha(aad(place))
    return (expand(dek, b"postern/seal/1/enc" + place_hash, 32), expand(dek, b"postern/seal/1/commit" + place_hash, 32))


def seal(dek, place, plaintext, nonce, version=1, suite=1):
    key, commitment = seal_keys(dek, place)
    header = bytes([version, suite]) + commitment
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, header + aad(place))


def gf(x, y):
    """Multiplication in GCM's field (SP 800-38D section 6.3)."""
    z, v = 0, y
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= v
        v = (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
    return z


def inverse(x):
    result, power = 1 << 127, x
    for i in range(128):
        if i:
            result = gf(result, power)
        power = gf(power, power)
    return result


def ecb(key, block):
    return int.from_bytes(Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block), "big")


def two_keys(dek, other, place, nonce):
    """One text and one tag that AES-GCM accepts under both keys: why the commitment is there."""
    key, commitment = seal_keys(dek, place)
    wrong, _ = seal_keys(other, place)
    bound = bytes([1, 1]) + commitment + aad(place)
    first = fill(0x30)[:16]
    pad = lambda data: data + bytes(-len(data) % 16)
    blocks = lambda data: [int.from_bytes(data[i:i + 16], "big") for i in range(0, len(data), 16)]
    lengths = struct.pack(">QQ", len(bound) * 8, 32 * 8)

    def fixed(k):
        h, y = ecb(k, bytes(16)), 0
        for block in blocks(pad(bound)) + blocks(first) + [0] + blocks(lengths):
            y = gf(y ^ block, h)
        return h, y ^ ecb(k, nonce + b"\0\0\0\1")

    (h1, s1), (h2, s2) = fixed(key), fixed(wrong)
    second = gf(s1 ^ s2, inverse(gf(h1, h1) ^ gf(h2, h2)))
    tag = s1 ^ gf(second, gf(h1, h1))
    text = first + second.to_bytes(16, "big") + tag.to_bytes(16, "big")
    for k in (key, wrong):
        AESGCM(k).decrypt(nonce, text, bound)
    return bytes([1, 1]) + commitment + nonce + text


DEK, OTHER, NONCE = fill(0x10), fill(0x90), bytes(range(0xA0, 0xAC))
good = seal(DEK, FULL, b"refresh-token", NONCE)


def changed(position, value):
    blob = bytearray(good)
    blob[position] = value
    return bytes(blob)


refused = [
    ("empty", DEK, FULL, b"", "malformed"),
    ("header only", DEK, FULL, good[:46], "malformed"),
    ("one byte short of a tag", DEK, FULL, good[:61], "malformed"),
    ("version 2", DEK, FULL, changed(0, 2), "malformed"),
    ("suite 2", DEK, FULL, changed(1, 2), "malformed"),
    ("sealed as version 2 throughout", DEK, FULL, seal(DEK, FULL, b"x", NONCE, version=2), "malformed"),
    ("another commitment", DEK, FULL, changed(2, good[2] ^ 1), "wrong_key"),
    ("another nonce", DEK, FULL, changed(34, good[34] ^ 1), "tampered"),
    ("another text", DEK, FULL, changed(46, good[46] ^ 1), "tampered"),
    ("another tag", DEK, FULL, changed(len(good) - 1, good[-1] ^ 1), "tampered"),
    ("cut by one byte", DEK, FULL, good[:-1], "tampered"),
    ("longer by one byte", DEK, FULL, good + b"\0", "tampered"),
    ("another key", OTHER, FULL, good, "wrong_key"),
    ("another row", DEK, {**FULL, "row": typeid("grt", 1)}, good, "wrong_key"),
    ("an older generation's place", DEK, {**FULL, "generation": 6}, good, "wrong_key"),
]
write("seal.json", "crypto.md section 2: sealed secrets, and blobs that must not open.",
      cases=[{"name": name, "dek": DEK.hex(), "aad": place, "plaintext": text.hex(), "nonce": NONCE.hex(),
              "sealed": seal(DEK, place, text, NONCE).hex()}
             for name, place, text in [("a token", FULL, b"refresh-token"), ("nothing", BARE, b""),
                                       ("64 bytes", WIDE, fill(0) + fill(32))]],
      refused=[{"name": n, "dek": d.hex(), "aad": a, "sealed": s.hex(), "error": e} for n, d, a, s, e in refused],
      two_keys={"dek": DEK.hex(), "other_dek": OTHER.hex(), "aad": FULL,
                "sealed": two_keys(DEK, OTHER, FULL, NONCE).hex()})

# ---- wrapped DEKs, ODK commitments, local KEK wraps ---------------------------------------------------------------
ODK, ODK_NUMBER, SALT = fill(0x40), 0x0188BAC74AFA78AABC3BBD1EEF28D884, fill(0x60)


def wrap(odk, number, place, dek, salt):
    bound = aad(place, "dek:")
    derived = expand(odk, b"postern/wrap/1" + salt + sha(bound), 44)
    return b"\1" + number.to_bytes(16, "big") + salt + AESGCM(derived[:32]).encrypt(derived[32:], dek, bound)


write("wrap.json", "crypto.md section 3: a DEK wrapped by an ODK.", cases=[
    {"name": name, "odk_id": typeid("key", ODK_NUMBER), "odk": ODK.hex(), "aad": place, "dek": DEK.hex(),
     "salt": SALT.hex(), "wrapped": wrap(ODK, ODK_NUMBER, place, DEK, SALT).hex()}
    for name, place in [("every part", FULL), ("absent parts", BARE), ("beyond ASCII", WIDE)]])

write("odk_commitment.json", "crypto.md section 1: the commitment stored beside a wrapped ODK.", cases=[
    {"name": name, "odk_id": typeid("key", ODK_NUMBER), "odk": ODK.hex(), "org": org, "commitment":
     expand(ODK, b"postern/odk/commit/1" + f(org) + f(typeid("key", ODK_NUMBER)), 32).hex()}
    for name, org in [("an org's key", FULL["org"]), ("the deployment's key", "")]])


def local_wrap(kek, org, odk, purpose, key, salt):
    context = f("postern/kek-context/1") + f(org) + f(odk) + f(purpose)
    derived = expand(kek, b"postern/kek-wrap/1" + salt + sha(context), 44)
    return b"\1" + salt + AESGCM(derived[:32]).encrypt(derived[32:], key, b"\1" + context)


write("local_wrap.json", "crypto.md section 1a: an ODK wrapped by a local KEK.", cases=[
    {"name": name, "kek": bytes(range(32)).hex(), "org": org, "odk": typeid("key", 2), "purpose": "postern-odk",
     "key": (b"\x42" * 32).hex(), "salt": (b"\x53" * 32).hex(),
     "wrapped": local_wrap(bytes(range(32)), org, typeid("key", 2), "postern-odk", b"\x42" * 32, b"\x53" * 32).hex()}
    for name, org in [("an org's key", typeid("org", 1)), ("the deployment's key", "")]])

write("mac.json", "crypto.md section 1: keyed hashes of API keys, sessions and links.", cases=[
    {"name": name, "key": fill(0x70).hex(), "domain": domain, "bytes": data.hex(),
     "mac": hmac.new(fill(0x70), f("postern/mac/1") + f(domain) + data, hashlib.sha256).hexdigest()}
    for name, domain, data in [("an api key", "api_key", b"psa_x"), ("nothing", "", b""), ("a link", "link", fill(0))]])

# ---- API keys -----------------------------------------------------------------------------------------------------
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def base62(number, width):
    digits = ""
    for _ in range(width):
        digits, number = ALPHABET[number % 62] + digits, number // 62
    assert number == 0
    return digits


def with_checksum(body):
    return body + base62(int.from_bytes(sha(b"postern/api-key/1" + body.encode())[:4], "big"), 6)


def api_key(prefix, secret):
    return with_checksum(f"{prefix}_{base62(int.from_bytes(secret, 'big'), 43)}")


agent = api_key("psa", fill(1))
write("api_key.json", "crypto.md section 1b: API keys, and texts that are none.",
      cases=[{"name": name, "prefix": prefix, "random": secret.hex(), "key": api_key(prefix, secret)}
             for name, prefix, secret in [("agent", "psa", fill(1)), ("service", "pss", fill(0x80)),
                                          ("admin", "psd", fill(0xF0)), ("zeros", "psa", bytes(32)),
                                          ("the greatest", "psa", b"\xff" * 32)]],
      refused=[{"name": name, "key": key} for name, key in [
          ("empty", ""), ("prefix alone", "psa_"), ("unknown prefix", with_checksum("psx_" + agent[4:47])),
          ("upper-case prefix", "PSA" + agent[3:]), ("another kind's checksum", "psd" + agent[3:]),
          ("no underscore", "psa-" + agent[4:]), ("short", agent[:-1]), ("long", agent + "0"),
          ("white space", agent[:-1] + " "), ("wrong checksum", agent[:-1] + ("0" if agent[-1] != "0" else "1")),
          ("beyond 256 bits, right checksum", with_checksum("psa_" + "z" * 43)),
          ("not a digit, right checksum", with_checksum("psa_" + "-" + agent[5:47])),
          ("two bytes in one place", agent[:10] + "\u00e9" + agent[12:]),
      ]])

# ---- canonical JSON -----------------------------------------------------------------------------------------------
RFC_INPUT = r'''{
  "numbers": [333333333.33333329, 1E30, 4.50,
              2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}'''
RFC_OUTPUT = ('{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
              '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}')
SORT_INPUT = r'''{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
"\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}'''
SORT_OUTPUT = ('{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis",'
               '"\u20ac":"Euro Sign","\U0001f600":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}')
write("jcs.json", "RFC 8785 sections 3.2.2 and 3.2.3, and edges of our own.", cases=[
    {"name": "RFC 8785 section 3.2.2", "input": RFC_INPUT, "canonical": RFC_OUTPUT},
    {"name": "RFC 8785 section 3.2.3", "input": SORT_INPUT, "canonical": SORT_OUTPUT},
    {"name": "empty", "input": " { } ", "canonical": "{}"},
    {"name": "controls", "input": '"\\u0000\\u0008\\u0009\\u000a\\u000c\\u000d\\u001f\\u007f"',
     "canonical": '"\\u0000\\b\\t\\n\\f\\r\\u001f\x7f"'},
    {"name": "no normalisation", "input": '["\\u00c5","A\\u030a"]', "canonical": '["\u00c5","A\u030a"]'},
    {"name": "nested members sort", "input": '{"b":{"z":1,"a":2},"a":[{"d":1,"c":2}]}',
     "canonical": '{"a":[{"c":2,"d":1}],"b":{"a":2,"z":1}}'},
])
write("jcs_numbers.json", "RFC 8785 appendix B: numbers by their IEEE 754 bits.", cases=[
    {"ieee754": bits, "canonical": text} for bits, text in [
        ("0000000000000000", "0"), ("8000000000000000", "0"), ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"), ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"), ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"), ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"), ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"), ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"), ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"), ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"), ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"), ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"), ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ]])

# ---- the strict gate ----------------------------------------------------------------------------------------------
write("strict_json.json", "crypto.md section 5: texts that pass with their canonical form, and texts that do not.",
      cases=[{"name": n, "hex": t.hex(), "fractions": fr, "canonical": c} for n, t, fr, c in ACCEPTED],
      refused=[{"name": n, "hex": t.hex(), "fractions": fr, "error": e, **({} if p is None else {"pointer": p})}
               for n, t, fr, e, p in REJECTED])

# ---- actions ------------------------------------------------------------------------------------------------------
ACTION = {"typ": "postern.action/1", "org": FULL["org"], "user": FULL["user"], "agent": typeid("agt", 9),
          "grant": FULL["row"], "connector": "slack", "tool": "chat.postMessage", "tool_digest": "sha256:" + sha(b"t").hex(),
          "args": {"channel": "C1", "text": "hi \u20ac \U0001f600 \"quoted\"\n"}}
actions = [("a message", ACTION), ("no args", {**ACTION, "args": {}}),
           ("nested args", {**ACTION, "args": {"z": [1, -1, {"b": None, "a": True}], "a": 9007199254740991}})]
write("action_hash.json", "protocol.md section 3: the canonical action and its hash.", cases=[
    {"name": name, "action": action, "canonical": jcs(action).decode(), "action_hash": b64u(sha(jcs(action)))}
    for name, action in actions])

# ---- JOSE ---------------------------------------------------------------------------------------------------------
ED = ed25519.Ed25519PrivateKey.from_private_bytes(fill(0x20))
ED_X = ED.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
EC = ec.derive_private_key(int.from_bytes(fill(0x21), "big"), ec.SECP256R1())
EC_POINT = EC.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
ED_JWK = {"kty": "OKP", "crv": "Ed25519", "x": b64u(ED_X)}
EC_JWK = {"kty": "EC", "crv": "P-256", "x": b64u(EC_POINT[1:33]), "y": b64u(EC_POINT[33:])}
TYP = "action-decision+jwt"


def thumbprint(jwk):
    return b64u(sha(jcs({name: jwk[name] for name in ("crv", "kty", "x", "y") if name in jwk})))


write("jwk.json", "RFC 7638 thumbprints of public keys.", cases=[
    {"name": name, "jwk": jwk, "alg": alg, "thumbprint": thumbprint(jwk)}
    for name, jwk, alg in [("Ed25519", ED_JWK, "EdDSA"), ("P-256", EC_JWK, "ES256"),
                           ("members that do not count", {**ED_JWK, "use": "sig", "alg": "EdDSA", "ext": True}, "EdDSA")]])


def token(header, payload, signer):
    head = b64u(header if isinstance(header, bytes) else jcs(header))
    signing_input = f"{head}.{b64u(payload)}".encode()
    return signing_input.decode() + "." + b64u(signer(signing_input))


def old_es256():
    try:
        with open(os.path.join(HERE, "jose.json"), encoding="utf-8") as file:
            cases = json.load(file)["cases"]
            return dict(case["token"].rsplit(".", 1) for case in cases)
    except OSError:
        return {}


KEPT = old_es256()


def es256(data):
    """r and s, 32 bytes each (RFC 7518 section 3.4); a kept signature must still verify."""
    if kept := KEPT.get(data.decode()):
        raw = base64.urlsafe_b64decode(kept + "==")
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        EC.public_key().verify(der, data, ec.ECDSA(hashes.SHA256()))
        return raw
    r, s = decode_dss_signature(EC.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def header(alg, key, /, **more):
    return {"alg": alg, "kid": thumbprint(key), "typ": TYP, **more}


CLAIMS = b'{"iss":"https://postern.example","ver":1}'
ed_token = token(header("EdDSA", ED_JWK), CLAIMS, ED.sign)
ec_token = token(header("ES256", EC_JWK), CLAIMS, es256)
body, signature = ed_token.rsplit(".", 1)
head, payload = body.split(".")
refused = [
    ("no signature part", body, ED_JWK, TYP, "not_compact"),
    ("four parts", ed_token + ".AA", ED_JWK, TYP, "not_compact"),
    ("empty", "", ED_JWK, TYP, "not_compact"),
    ("padded", ed_token + "==", ED_JWK, TYP, "encoding"),
    ("plain base64 alphabet", head + "." + payload + "." + "+" * 86, ED_JWK, TYP, "encoding"),
    ("unsigned", body + ".", ED_JWK, TYP, "signature"),
    ("another payload", head + "." + b64u(b"{}") + "." + signature, ED_JWK, TYP, "signature"),
    ("another type asked for", ed_token, ED_JWK, "at+jwt", "typ"),
    ("another key", ed_token, EC_JWK, TYP, "kid"),
    ("alg none", token(header("none", ED_JWK), CLAIMS, lambda _: b""), ED_JWK, TYP, "unknown_algorithm"),
    ("HMAC with the public key", token(header("HS256", ED_JWK), CLAIMS, lambda d: hmac.new(ED_X, d, "sha256").digest()),
     ED_JWK, TYP, "unknown_algorithm"),
    ("ES256 named for an Ed25519 key", token(header("ES256", ED_JWK), CLAIMS, ED.sign), ED_JWK, TYP,
     "algorithm_not_pinned"),
    ("EdDSA named for a P-256 key", token(header("EdDSA", EC_JWK), CLAIMS, ED.sign), EC_JWK, TYP, "algorithm_not_pinned"),
    ("crit", token(header("EdDSA", ED_JWK, crit=["exp"]), CLAIMS, ED.sign), ED_JWK, TYP, "header_member"),
    ("embedded key", token(header("EdDSA", ED_JWK, jwk=ED_JWK), CLAIMS, ED.sign), ED_JWK, TYP, "header_member"),
    ("unencoded payload", token(header("EdDSA", ED_JWK, b64=False), CLAIMS, ED.sign), ED_JWK, TYP, "header_member"),
    ("no type", token({"alg": "EdDSA", "kid": thumbprint(ED_JWK)}, CLAIMS, ED.sign), ED_JWK, TYP, "header_value"),
    ("a header member twice", token(b'{"alg":"none","alg":"EdDSA","kid":"k","typ":"t"}', CLAIMS, ED.sign), ED_JWK, TYP,
     "header"),
    ("zero r and s", token(header("ES256", EC_JWK), CLAIMS, lambda _: bytes(64)), EC_JWK, TYP, "signature"),
]
write("jose.json", "crypto.md section 4: compact JWS that verify, and that do not.",
      cases=[{"name": "EdDSA", "jwk": ED_JWK, "typ": TYP, "token": ed_token, "payload": CLAIMS.decode()},
             {"name": "ES256", "jwk": EC_JWK, "typ": TYP, "token": ec_token, "payload": CLAIMS.decode()}],
      refused=[{"name": n, "jwk": k, "typ": t, "token": text, "error": e} for n, text, k, t, e in refused],
      signed={"seed": fill(0x20).hex(), "payload": CLAIMS.decode(), "token": ed_token,
              "pkcs8": ED.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
                                        serialization.NoEncryption()).hex()})

# ---- The log's tree: RFC 9162 section 2.1, from its recursive definitions. Leaf i is the entry `i` in decimal.


def half(count):
    return 1 << (count - 1).bit_length() - 1


def mth(leaves):
    if len(leaves) < 2:
        return sha(b"\x00" + leaves[0]) if leaves else sha(b"")
    k = half(len(leaves))
    return sha(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m, leaves):
    if len(leaves) == 1:
        return []
    k = half(len(leaves))
    return path(m, leaves[:k]) + [mth(leaves[k:])] if m < k else path(m - k, leaves[k:]) + [mth(leaves[:k])]


def subproof(m, leaves, whole):
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = half(len(leaves))
    if m <= k:
        return subproof(m, leaves[:k], whole) + [mth(leaves[k:])]
    return subproof(m - k, leaves[k:], False) + [mth(leaves[:k])]


def hexes(proof):
    return [one.hex() for one in proof]


LEAVES = [str(number).encode() for number in range(600)]
write("audit_proofs.json", "docs/audit-log.md section 9: leaf i is the entry `i` in decimal digits, hashes are hexadecimal.",
      roots=[{"size": size, "root": mth(LEAVES[:size]).hex()} for size in (0, 1, 2, 7, 8, 255, 256, 257, 512, 600)],
      inclusion=[{"index": index, "size": size, "hashes": hexes(path(index, LEAVES[:size]))}
                 for index, size in [(0, 1), (0, 2), (1, 2), (2, 3), (0, 7), (6, 7), (3, 8), (254, 255), (255, 256),
                                     (256, 257), (0, 600), (300, 600), (511, 600), (512, 600), (599, 600)]],
      consistency=[{"from": first, "to": second, "hashes": hexes(subproof(first, LEAVES[:second], True))}
                   for first, second in [(1, 1), (1, 2), (2, 3), (3, 7), (4, 7), (6, 8), (7, 8), (255, 256), (256, 257),
                                         (256, 600), (257, 600), (512, 600), (599, 600), (600, 600)]],
      tiles=[{"path": "0/000", "size": 600, "sha256": sha(b"".join(sha(b"\x00" + one) for one in LEAVES[:256])).hex()},
             {"path": "0/002.p/88", "size": 600,
              "sha256": sha(b"".join(sha(b"\x00" + one) for one in LEAVES[512:])).hex()},
             {"path": "1/000.p/2", "size": 600, "sha256": sha(mth(LEAVES[:256]) + mth(LEAVES[256:512])).hex()}])
