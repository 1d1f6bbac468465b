"""Evidence as it travels, and what a verifier says about it (docs/spec/evidence.md, docs/spec/appraisal.md §2).

The attestation document is JSON with bytes in base64url, parsed strictly and exactly.
Leaves out: what stands inside a TEE's evidence (tee/), how checks are recorded (checks.py), the decision (appraise.py).
"""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.attestation.binding import Mode
from blindai.errors import MalformedEvidenceError
from blindai.wire import (
    base64url_decode,
    base64url_encode,
    bounded_list,
    compact_json,
    exact_bytes,
    require_members,
    strict_json,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DOCUMENT_BYTES = 1 << 20
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_MODES = {mode.name.lower(): mode for mode in Mode}
_REQUIRED = frozenset({"keyset", "mode", "evidence"})
_OPTIONAL = frozenset({"batch"})


class Level(enum.IntEnum):
    """How much an attestation promises; ordered, and always the verifier's own finding."""

    SIMULATED = 0
    PINNED_TLS = 1
    CACHED = 2
    FRESH = 3

    @property
    def text(self) -> str:
        """The level's name in policies and output, for example `pinned-tls`."""
        return self.name.lower().replace("_", "-")


class Outcome(enum.StrEnum):
    """How a check ended; `tracked` failed, and the policy only wants to know."""

    PASSED = "passed"
    FAILED = "failed"
    TRACKED = "tracked"
    SKIPPED = "skipped"


_MARKS = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.TRACKED: "!", Outcome.SKIPPED: "–"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check, for people and for code.

    Attributes:
        code: the check's stable name, for example `simulation.measurement`.
        expected: what would pass.
        found: what is there.
        why: why the check matters.
        hint: what to do next if it failed, or nothing.
        reason: the policy's words for leaving the check out; only when skipped.
    """

    code: str
    outcome: Outcome
    expected: str
    found: str
    why: str
    hint: str = ""
    reason: str = ""

    def line(self) -> str:
        """The check on one line, readable without colour; nothing in the evidence can begin another line."""
        return "".join(one if one.isprintable() else repr(one)[1:-1] for one in self._text())

    def _text(self) -> str:
        head = f"{_MARKS[self.outcome]} {self.code}: "
        if self.outcome is Outcome.SKIPPED:
            found = f", found {self.found}" if self.found else ""
            return f"{head}skipped ({self.reason}){found}. {self.why}"
        if self.outcome is Outcome.TRACKED:
            return f"{head}tracked only: expected {self.expected}, found {self.found}. {self.why}"
        if self.outcome is Outcome.FAILED:
            return f"{head}expected {self.expected}, found {self.found}. {self.why}"
        return f"{head}{self.found}. {self.why}"


def explain(findings: Iterable[Finding]) -> str:
    """Every check on a line: ✓ passed, ✗ failed, ! failed but only tracked, – skipped."""
    return "\n".join(finding.line() for finding in findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims(ABC):
    """What authentic evidence says, before anybody decides whether that is good enough; one subclass per TEE.

    Attributes:
        bound: the evidence's own copy of the binding.
    """

    tee: str
    bound: bytes = field(repr=False)

    @abstractmethod
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Each claim as a name and a text, in the words of the TEE's vendor."""

    def carrier_report_data(self) -> bytes | None:
        """What the CPU's report must hold in place of the binding, if this item stands between the two."""
        return None

    def carries_for(self, tee: str, evidence: bytes) -> bool:  # noqa: ARG002  # an answer of those that carry
        """Whether this item, if it stands between a machine's report and the binding, was made for that very report."""
        return False

    def device_identity(self) -> bytes | None:
        """What tells one device from another of its kind, if this is a device's."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """Accepted evidence: what it claims, and every check that was made or left out."""

    tees: tuple[str, ...]
    claims: tuple[Claims, ...]
    findings: tuple[Finding, ...]
    simulated: bool

    def explain(self) -> str:
        """Every check on a line, and why it matters."""
        return explain(self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceItem:
    """One TEE's evidence, and the endorsements that the server stapled to it.

    Attributes:
        tee: the TEE's name, for example `simulation`.
        endorsements: names and bytes; each name once.
    """

    tee: str
    evidence: bytes = field(repr=False)
    endorsements: tuple[tuple[str, bytes], ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProof:
    """Where a nonce stands in the batch that shares one quote; see `binding.root_from_path`."""

    index: int
    count: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationDocument:
    """The attestation endpoint's answer.

    Attributes:
        keyset: `K` as transmitted.
        batch: only when fresh; a published document leaves it out, since the nonce is private.
    """

    keyset: bytes = field(repr=False)
    mode: Mode
    evidence: tuple[EvidenceItem, ...]
    batch: BatchProof | None = None


def document_members(document: AttestationDocument) -> dict[str, Any]:
    """The document as a JSON object, for it alone or inside another one."""
    members: dict[str, Any] = {
        "keyset": base64url_encode(document.keyset),
        "mode": document.mode.name.lower(),
        "evidence": [_item_members(item) for item in document.evidence],
    }
    if document.batch is not None:
        path = [base64url_encode(node) for node in document.batch.path]
        members["batch"] = {"index": document.batch.index, "count": document.batch.count, "path": path}
    return members


def _item_members(item: EvidenceItem) -> dict[str, Any]:
    endorsements = {name: base64url_encode(data) for name, data in item.endorsements}
    if len(endorsements) != len(item.endorsements):
        raise ValueError("an endorsement is named twice")
    return {"tee": item.tee, "evidence": base64url_encode(item.evidence), "endorsements": endorsements}


def encode_document(document: AttestationDocument) -> bytes:
    """The attestation endpoint's answer as bytes."""
    return compact_json(document_members(document))


def parse_document(data: bytes) -> AttestationDocument:
    """Read the attestation endpoint's answer.

    Raises:
        MalformedEvidenceError: more than 1 MiB, or anything but exactly a document.
    """
    try:
        value = strict_json(data, max_bytes=MAX_DOCUMENT_BYTES)
    except ValueError as error:
        raise _malformed(error) from None
    return parse_document_members(value)


def parse_document_members(value: object) -> AttestationDocument:
    """Read a document that stands inside another JSON object, already parsed by `strict_json`.

    Raises:
        MalformedEvidenceError: anything but exactly a document.
    """
    try:
        members = require_members(value, _REQUIRED, _OPTIONAL)
        return AttestationDocument(
            keyset=base64url_decode(members["keyset"]),
            mode=_parse_mode(members["mode"]),
            evidence=tuple(_parse_item(item) for item in bounded_list(members["evidence"])),
            batch=_parse_batch(members),
        )
    except ValueError as error:
        raise _malformed(error) from None


def _malformed(error: ValueError) -> MalformedEvidenceError:
    return MalformedEvidenceError(f"the attestation document is malformed: {error}", finding_code="evidence.document")


def _parse_mode(value: object) -> Mode:
    if not isinstance(value, str) or value not in _MODES:
        raise ValueError(f"mode is one of {', '.join(_MODES)}")
    return _MODES[value]


def _parse_item(value: object) -> EvidenceItem:
    members = require_members(value, frozenset({"tee", "evidence", "endorsements"}))
    endorsements = members["endorsements"]
    if not isinstance(endorsements, dict):
        raise ValueError("endorsements is an object")  # noqa: TRY004  # callers wrap one exception type
    pairs = bounded_list(list(endorsements.items()))
    return EvidenceItem(
        tee=_parse_name(members["tee"]),
        evidence=base64url_decode(members["evidence"]),
        endorsements=tuple(sorted((_parse_name(name), base64url_decode(data)) for name, data in pairs)),
    )


def _parse_name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise ValueError("a name is 1 to 32 of a-z, 0-9 and _, a letter first")
    return value


def _parse_batch(members: dict[str, Any]) -> BatchProof | None:
    if "batch" not in members:
        return None
    if members["mode"] != "fresh":
        raise ValueError("only fresh evidence has a batch")
    batch = require_members(members["batch"], frozenset({"index", "count", "path"}))
    return BatchProof(
        index=whole_number(batch["index"]),
        count=whole_number(batch["count"]),
        path=tuple(exact_bytes(node, 32) for node in bounded_list(batch["path"])),
    )
