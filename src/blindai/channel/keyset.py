"""The keyset: the public keys and promises that evidence vouches for (docs/spec/sealed.md §1).

`K` is JSON, hashed as transmitted: `KSID = SHA-256(L("keyset") ‖ LP(K))`. Parsing is strict at every depth.
Leaves out: private keys (keyring.py) and whether a keyset is to be believed (attested.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from blindai.channel.admission import Admission, admission_members, parse_admission
from blindai.channel.hpke import KEM_ID, PUBLIC_KEY_BYTES
from blindai.channel.runtime_policy import RuntimePolicy, parse_runtime_policy
from blindai.errors import MalformedEvidenceError
from blindai.wire import (
    MAX_LIST,
    base64url_encode,
    boolean,
    bounded_list,
    compact_json,
    exact_bytes,
    label,
    length_prefixed,
    printable,
    require_members,
    strict_json,
    whole_number,
)

MAX_KEYSET_BYTES = 16 * 1024
INSTANCE_BYTES = 32
MAX_EPOCH_S = 24 * 3600
MAX_FRESH_S = 15 * 60
DEFAULT_SERVICE = "blindai-srv"

Kind = Literal["epoch", "fresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What answers: the server's name and version, and the version of each engine."""

    name: str
    version: str
    engines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """A parsed keyset; see docs/spec/sealed.md §1 for each member. Times are Unix seconds."""

    service: str
    operator: Admission | None
    instance: bytes
    kind: Kind
    challenge: bytes
    not_before: int
    not_after: int
    hpke_public_key: bytes
    tls: tuple[bytes, ...]
    receipt_public_key: bytes
    runtime: RuntimePolicy
    software: Software
    simulated: bool

    def encode(self) -> bytes:
        """`K`, as it is transmitted and hashed."""
        encoded = compact_json(
            {
                "version": 1,
                "service": self.service,
                "operator": admission_members(self.operator),
                "instance": base64url_encode(self.instance),
                "kind": self.kind,
                "challenge": base64url_encode(self.challenge),
                "not_before": self.not_before,
                "not_after": self.not_after,
                "hpke": [{"kem": KEM_ID, "public_key": base64url_encode(self.hpke_public_key)}],
                "tls": [base64url_encode(spki) for spki in self.tls],
                "receipt": {"alg": "Ed25519", "public_key": base64url_encode(self.receipt_public_key)},
                "runtime": self.runtime.members(),
                "software": {
                    "name": self.software.name,
                    "version": self.software.version,
                    "engines": dict(self.software.engines),
                },
                "simulated": self.simulated,
            }
        )
        if len(encoded) > MAX_KEYSET_BYTES:
            raise ValueError(f"a keyset has at most {MAX_KEYSET_BYTES} bytes, this one has {len(encoded)}")
        return encoded


def keyset_id(encoded: bytes) -> bytes:
    """`KSID`, over the bytes as transmitted."""
    return hashlib.sha256(label("keyset") + length_prefixed(encoded)).digest()


_MEMBERS = frozenset(
    {
        "version",
        "service",
        "operator",
        "instance",
        "kind",
        "challenge",
        "not_before",
        "not_after",
        "hpke",
        "tls",
        "receipt",
        "runtime",
        "software",
        "simulated",
    }
)


def parse_keyset(encoded: bytes) -> Keyset:
    """Read `K`.

    Raises:
        MalformedEvidenceError: anything but exactly a version 1 keyset.
    """
    try:
        return _parse(require_members(strict_json(encoded, max_bytes=MAX_KEYSET_BYTES), _MEMBERS))
    except ValueError as error:
        raise MalformedEvidenceError(f"the keyset is malformed: {error}", finding_code="keyset.malformed") from None


def _parse(members: dict[str, Any]) -> Keyset:
    if members["version"] != 1 or isinstance(members["version"], bool):
        raise ValueError("this client reads keysets of version 1")
    kind: Kind = "fresh" if members["kind"] == "fresh" else "epoch"
    if members["kind"] != kind:
        raise ValueError("kind is neither epoch nor fresh")
    keyset = Keyset(
        service=printable(members["service"]),
        operator=parse_admission(members["operator"]),
        instance=exact_bytes(members["instance"], INSTANCE_BYTES),
        kind=kind,
        challenge=exact_bytes(members["challenge"], 32 if kind == "fresh" else 0),
        not_before=whole_number(members["not_before"]),
        not_after=whole_number(members["not_after"]),
        hpke_public_key=_parse_hpke(members["hpke"]),
        tls=tuple(exact_bytes(spki, 32) for spki in bounded_list(members["tls"])),
        receipt_public_key=_parse_receipt_key(members["receipt"]),
        runtime=parse_runtime_policy(members["runtime"]),
        software=_parse_software(members["software"]),
        simulated=boolean(members["simulated"]),
    )
    longest = MAX_FRESH_S if kind == "fresh" else MAX_EPOCH_S
    if not 0 < keyset.not_after - keyset.not_before <= longest:
        raise ValueError(f"a keyset of kind {kind} lives between 1 and {longest} seconds")
    if kind == "fresh" and keyset.tls:
        raise ValueError("a fresh keyset names no TLS keys")
    return keyset


def _parse_hpke(value: object) -> bytes:
    keys = bounded_list(value)
    if len(keys) != 1:
        raise ValueError("a keyset has exactly one HPKE key")
    members = require_members(keys[0], frozenset({"kem", "public_key"}))
    if members["kem"] != KEM_ID:
        raise ValueError(f"the one KEM is {KEM_ID} (X-Wing)")
    return exact_bytes(members["public_key"], PUBLIC_KEY_BYTES)


def _parse_receipt_key(value: object) -> bytes:
    members = require_members(value, frozenset({"alg", "public_key"}))
    if members["alg"] != "Ed25519":
        raise ValueError("receipts are signed with Ed25519")
    return exact_bytes(members["public_key"], 32)


def _parse_software(value: object) -> Software:
    members = require_members(value, frozenset({"name", "version", "engines"}))
    engines = members["engines"]
    if not isinstance(engines, dict) or len(engines) > MAX_LIST:
        raise ValueError("engines is an object of engine names and versions")
    return Software(
        name=printable(members["name"]),
        version=printable(members["version"]),
        engines=tuple((printable(name), printable(version)) for name, version in engines.items()),
    )
