"""A response as it is kept: its proof, and what opens it (docs/spec/receipt.md, Saved responses).

    {"version": 1, "proof": {…}, "run": {…}}        a run: its opening, both bodies included
    {"version": 1, "proof": {…}, "upload": {…}}     an upload: what opens the answer, and not the model

Private, as the opening is. Leaves out: whether any of it is true (proof.py, classic_responses.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.client.proof import MAX_OPENING_BYTES, Opening, Proof, parse_opening, parse_proof
from blindai.errors import InvalidReceiptError
from blindai.wire import base64url_decode, base64url_encode, exact_bytes, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SAVED_BYTES = MAX_OPENING_BYTES
_RUN, _UPLOAD = "run", "upload"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """A run: `opening` holds the user's data."""

    proof: Proof
    opening: Opening = field(repr=False)

    def encode(self) -> bytes:
        """As JSON."""
        return _encode(self.proof, _RUN, json.loads(self.opening.encode()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedUpload:
    """An upload.

    Attributes:
        salt: the 32 bytes that open the answer; the model, of which nothing is kept, stays closed.
        answer: the answer's body, which names the model's files and digest.
    """

    proof: Proof
    salt: bytes = field(repr=False)
    answer: bytes = field(repr=False)

    def encode(self) -> bytes:
        """As JSON."""
        members = {"salt": base64url_encode(self.salt), "response": base64url_encode(self.answer)}
        return _encode(self.proof, _UPLOAD, members)


def _encode(proof: Proof, kind: str, opened: dict[str, Any]) -> bytes:
    return json.dumps({"version": 1, "proof": json.loads(proof.encode()), kind: opened}, indent=1).encode() + b"\n"


def read_saved(data: bytes) -> SavedRun | SavedUpload:
    """The inverse of `encode`.

    Raises:
        InvalidReceiptError: anything but exactly a saved response.
        MalformedEvidenceError: its evidence is malformed.
    """
    try:
        members = strict_json(data, max_bytes=MAX_SAVED_BYTES)
        kind = _UPLOAD if isinstance(members, dict) and _UPLOAD in members else _RUN
        found = require_members(members, frozenset({"version", "proof", kind}))
        if whole_number(found["version"]) != 1:
            raise ValueError("not a saved response of version 1")  # noqa: TRY301  # one way to word it
        proof = parse_proof(_again(found["proof"]))
        if kind == _RUN:
            return SavedRun(proof=proof, opening=parse_opening(_again(found[_RUN])))
        return _read_upload(proof, require_members(found[_UPLOAD], frozenset({"salt", "response"})))
    except ValueError as error:
        raise InvalidReceiptError(f"the saved response is malformed: {error}") from None


def read_any_proof(data: bytes) -> tuple[Proof, Opening | None]:
    """The proof in `proof.json` or in a saved response, and the opening if there is one.

    Raises:
        InvalidReceiptError: neither of the two.
        MalformedEvidenceError: its evidence is malformed.
    """
    if re.match(rb'\s*\{\s*"version"\s*:\s*1\s*,\s*"proof"', data) is None:
        return parse_proof(data), None
    saved = read_saved(data)
    return saved.proof, saved.opening if isinstance(saved, SavedRun) else None


def _read_upload(proof: Proof, members: Mapping[str, Any]) -> SavedUpload:
    return SavedUpload(proof=proof, salt=exact_bytes(members["salt"], 32), answer=base64url_decode(members["response"]))


def _again(members: object) -> bytes:
    return json.dumps(members).encode()
