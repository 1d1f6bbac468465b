"""The cases of the topic `keyset`: `K` itself, the strict JSON and base64url beneath it, and admissions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from message_parts import MLKEM_SEED, X25519_SEED
from vector_format import KSID, ROOT, Case, base64url, compact, fixed
from vector_operations import OPERATIONS, key_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYSET_LABELS = ("keyset", "kid", "runtime-policy")


def _keyset_members() -> dict[str, Any]:
    public_key = key_pair({"mlkem_seed": MLKEM_SEED, "x25519_seed": X25519_SEED}).public_key
    receipt_key = Ed25519PrivateKey.from_private_bytes(fixed("receipt key", 32)).public_key().public_bytes_raw()
    return {
        "version": 1,
        "service": "blindai-srv",
        "operator": None,
        "instance": base64url(fixed("instance", 32)),
        "kind": "fresh",
        "challenge": base64url(ROOT),
        "not_before": 1_800_000_000,
        "not_after": 1_800_000_900,
        "hpke": [{"kem": 0x647A, "public_key": base64url(public_key)}],
        "tls": [],
        "receipt": {"alg": "Ed25519", "public_key": base64url(receipt_key)},
        "runtime": {
            "log_level": "info",
            "telemetry": False,
            "isolation": "model",
            "batching": False,
            "execution_providers": ["cpu"],
            "authentication": "none",
            "sealing": "ephemeral",
            "upload_allowed": True,
            "require_sealed": False,
            "models": [],
            "limits": {"max_body_bytes": 1 << 30, "max_model_bytes": 1 << 33, "max_models": 64, "run_timeout_s": 60},
            "configuration": base64url(fixed("configuration", 32)),
        },
        "software": {"name": "blindai", "version": "1.0.0", "engines": {"onnxruntime": "1.22.0"}},
        "simulated": True,
    }


def keyset_cases() -> Iterator[Case]:
    """Every case of the topic."""

    def case(slug: str, title: str, keyset: bytes, **more: Any) -> Case:
        failure = more.pop("failure", "malformed_evidence")
        return Case(
            topic="keyset",
            slug=slug,
            title=title,
            spec="docs/spec/sealed.md §1",
            operation="keyset",
            covers=() if failure else KEYSET_LABELS,
            inputs={"keyset": keyset, **more},
            failure=failure,
        )

    members = _keyset_members()
    signed = _admission_inputs()
    admitted = OPERATIONS["admit"](signed)
    operator = {**{name: base64url(value) for name, value in admitted.items()}, "not_after": signed["not_after"]}
    epoch = {**members, "kind": "epoch", "challenge": "", "not_after": 1_800_021_600, "tls": [base64url(KSID)]}
    epoch = {**epoch, "operator": operator}
    yield case("fresh", "a fresh keyset in its compact form", compact(members), failure=None)
    yield case("epoch", "an epoch keyset with a TLS key and an admission", compact(epoch), failure=None)
    spaced = json.dumps(members, separators=(", ", ": ")).encode()
    yield case("other-form", "hashed as transmitted: the same members, spaced and unsorted", spaced, failure=None)
    for slug, title, changed in _changed_members(members):
        yield case(slug, title, compact(changed))
    for slug, title, data in _changed_text(compact(members)):
        yield case(slug, title, data)
    yield case("too-large", "followed by blanks up to more than 16 KiB", compact(members), trailing_spaces=16384)
    yield from _encoding_cases()
    yield from _admission_cases()


def _encoding_cases() -> Iterator[Case]:
    """JSON and base64url by themselves, where no form stands behind them that refuses as well."""
    common: dict[str, Any] = {"topic": "keyset", "spec": "docs/spec/binding.md §1", "covers": ()}
    deepest = b'{"a":' * 4 + b"[" * 4
    for slug, title, data, failure in (
        ("json-compact", "sorted and without blanks", b' {"b": 1,\n"a":"\\u00e9"} ', False),
        ("json-deepest", "eight levels", deepest + b"]" * 4 + b"}" * 4, False),
        ("json-brackets-in-text", "brackets in a string are no levels", b'["' + b"[{" * 9 + b'\\"[[["]', False),
        ("json-integers", "±(2^53 − 1)", b"[9007199254740991,-9007199254740991]", False),
        ("json-nine-levels", "one level too deep", deepest + b"[]" + b"]" * 4 + b"}" * 4, True),
        ("json-positive", "2^53", b"[9007199254740992]", True),
        ("json-negative", "-2^53", b"[-9007199254740992]", True),
        ("json-digits", "thirty digits", b"[" + b"9" * 30 + b"]", True),
        ("json-leading-zero", "01", b"[01]", True),
        ("json-fraction", "1.0", b"[1.0]", True),
        ("json-exponent", "1e2", b"[1e2]", True),
        ("json-minus-zero", "-0", b"[-0]", True),
        ("json-nan", "NaN", b"[NaN]", True),
        ("json-infinity", "-Infinity", b"[-Infinity]", True),
        ("json-duplicate", "a name twice, four levels down", b'{"a":[{"b":{"c":1,"c":1}}]}', True),
        ("json-duplicate-escaped", "a name twice, in two spellings", b'{"a":1,"\\u0061":2}', True),
        ("json-surrogate", "half a character", b'["\\udc00"]', True),
        ("json-surrogate-name", "half a character, as a name", b'{"\\ud800":1}', True),
        ("json-not-utf8", "a byte C0", b'["\xc0\x80"]', True),
        ("json-utf16", "UTF-16", "{}".encode("utf-16-le"), True),
        ("json-byte-order-mark", "EF BB BF", b"\xef\xbb\xbf{}", True),
        ("json-control", "a line break in a string", b'["a\nb"]', True),
        ("json-trailing", "a second value", b"{} {}", True),
        ("json-trailing-zero", "a zero byte", b"{}\0", True),
        ("json-comma", "a comma too many", b"[1,]", True),
        ("json-empty", "no byte at all", b"", True),
    ):
        kind = "malformed_evidence" if failure else None
        inputs: dict[str, Any] = {"json": data}
        yield Case(slug=slug, title=title, operation="strict_json", inputs=inputs, failure=kind, **common)
    for slug, title, text, failure in (
        ("base64url", "two bytes", "__8", False),
        ("base64url-empty", "no bytes", "", False),
        ("base64url-padded", "with `=`", "__8=", True),
        ("base64url-spare-bits", "the same bytes in a second spelling", "__9", True),
        ("base64url-standard", "the other alphabet", "//8", True),
        ("base64url-one-letter", "six bits are no byte", "A", True),
        ("base64url-blank", "a blank", "AA AA", True),
        ("base64url-newline", "a line break at the end", "AAAA\n", True),
        ("base64url-wide", "letters outside ASCII", "\u0410AAA", True),
    ):
        kind = "malformed_evidence" if failure else None
        inputs = {"text": text}
        yield Case(slug=slug, title=title, operation="base64url", inputs=inputs, failure=kind, **common)


def _changed_members(members: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    hpke, engines = members["hpke"][0], {"engines": {}, "name": "blindai"}
    short_key = base64url(bytes(1215))
    yield "unknown-member", "a member that version 1 does not have", {**members, "extra": 1}
    yield "missing-member", "no `simulated`", {name: members[name] for name in members if name != "simulated"}
    yield "missing-inner-member", "no `version` in `software`", {**members, "software": engines}
    yield "version-2", "another version", {**members, "version": 2}
    yield "version-true", "true is not 1", {**members, "version": True}
    yield "other-kind", "neither epoch nor fresh", {**members, "kind": "stale"}
    yield "epoch-with-challenge", "an epoch keyset has no challenge", {**members, "kind": "epoch"}
    yield "fresh-without-challenge", "a fresh keyset has a challenge", {**members, "challenge": ""}
    yield "fresh-with-tls", "a fresh keyset names no TLS keys", {**members, "tls": [base64url(KSID)]}
    yield "fresh-too-long", "901 seconds", {**members, "not_after": members["not_after"] + 1}
    yield "ends-before-it-begins", "not_after = not_before", {**members, "not_after": members["not_before"]}
    yield "no-hpke-key", "an empty list", {**members, "hpke": []}
    yield "two-hpke-keys", "the list holds two", {**members, "hpke": [{**hpke, "public_key": short_key}, hpke]}
    yield "other-kem", "KEM 0x0020 (X25519 alone)", {**members, "hpke": [{**hpke, "kem": 32}]}
    yield "short-hpke-key", "a public key of 1215 bytes", {**members, "hpke": [{**hpke, "public_key": short_key}]}
    yield "other-receipt-algorithm", "EdDSA", {**members, "receipt": {**members["receipt"], "alg": "EdDSA"}}
    yield "lone-surrogate", "a service name that is not Unicode text", {**members, "service": "\ud800"}


def _changed_text(good: bytes) -> Iterator[tuple[str, str, bytes]]:
    deep = b"[" * 8 + b"]" * 8
    tail = base64url(fixed("instance", 32))[-1]
    spare = chr(ord(tail) + 1).encode()  # the last character carries four bits of the 32nd byte and two spare ones
    instance = base64url(fixed("instance", 32)).encode()

    def swap(old: bytes, new: bytes) -> bytes:
        assert good.count(old) == 1
        return good.replace(old, new)

    yield "duplicate-name", "a name twice at the top", b'{"version":1,' + good[1:]
    yield "duplicate-inner-name", "a name twice, one level down", swap(b'"engines":', b'"name":"x","engines":')
    yield "duplicate-escaped-name", "twice, once written with an escape", b'{"\\u0076ersion":1,' + good[1:]
    yield "byte-order-mark", "begins with EF BB BF", b"\xef\xbb\xbf" + good
    yield "trailing-bytes", "a second object follows", good + b"{}"
    yield "truncated", "the last brace is missing", good[:-1]
    yield "float", "1.0 is not an integer here", swap(b'"version":1', b'"version":1.0')
    yield "exponent", "nor is 1e0", swap(b'"version":1', b'"version":1e0')
    yield "not-a-number", "NaN", swap(b'"version":1', b'"version":NaN')
    yield "minus-zero", "-0", swap(b'"not_before":1800000000', b'"not_before":-0')
    yield "integer-too-large", "2^53", swap(b'"max_models":64', b'"max_models":9007199254740992')
    yield "negative", "a negative limit", swap(b'"max_models":64', b'"max_models":-1')
    yield "too-deep", "nine levels", swap(b'"version":1', b'"version":' + deep)
    yield "not-utf8", "a byte FF in a string", swap(b'"blindai-srv"', b'"blindai\xff"')
    yield "padded-base64url", "base64url with `=`", swap(instance, instance + b"=")
    yield "standard-base64", "`+` instead of `-`", swap(instance, b"+" + instance[1:])
    yield "spare-bits", "base64url whose spare bits are not zero", swap(instance, instance[:-1] + spare)
    yield "short-instance", "31 bytes", swap(instance, base64url(fixed("instance", 31)).encode())


def _admission_inputs() -> dict[str, Any]:
    return {
        "key_seed": fixed("operator", 32),
        "service": "blindai-srv",
        "instance": fixed("instance", 32),
        "attestation_key_name": b"",
        "not_after": 1_900_000_000,
    }


def _admission_cases() -> Iterator[Case]:
    inputs = _admission_inputs()
    named = {**inputs, "attestation_key_name": fixed("AK name", 34)}
    common: dict[str, Any] = {
        "topic": "keyset",
        "spec": "docs/spec/sealed.md §1 (`operator`)",
        "covers": ("admission",),
    }
    yield Case(slug="admit", title="an operator admits an instance", operation="admit", inputs=inputs, **common)
    yield Case(slug="admit-tpm", title="naming the TPM's attestation key", operation="admit", inputs=named, **common)
    known = {name: value for name, value in inputs.items() if name != "key_seed"}
    good = {**known, **OPERATIONS["admit"](inputs), "now": 1_800_000_000}
    common["operation"] = "verify_admission"
    yield Case(slug="admission", title="and a client verifies it", inputs=good, **common)
    common = {**common, "covers": (), "failure": "wrong_operator"}
    for slug, title, change in (
        ("admission-other-instance", "signed for another instance", {"instance": ROOT}),
        ("admission-other-service", "signed for another service", {"service": "other"}),
        ("admission-other-ak", "signed without this attestation key", {"attestation_key_name": ROOT}),
        ("admission-longer", "not_after changed", {"not_after": 1_900_000_001}),
        ("admission-ended", "the admission has ended", {"now": 1_900_000_000}),
    ):
        yield Case(slug=slug, title=title, inputs={**good, **change}, **common)
