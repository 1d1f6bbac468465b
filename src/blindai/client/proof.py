"""Proofs: what convinces others of a prediction, and what opens it to who may see the data (docs/spec/receipt.md).

`proof.json` is publishable: receipt, keyset, evidence and endorsements; no data. `proof.opening.json` is private:
the salt and both bodies. `verify_proof` needs neither the network nor the server, and works after both are gone.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import BatchProof, document_members, parse_document_members
from blindai.channel.attested import AttestedKeyset, accept_published, check_nonce_path
from blindai.client.model_reference import require_engine
from blindai.errors import InvalidInputError, InvalidReceiptError
from blindai.oip.rest import decode_infer_response
from blindai.receipts import Receipt, opens, verify_receipt
from blindai.wire import (
    base64url_decode,
    base64url_encode,
    bounded_list,
    exact_bytes,
    require_members,
    strict_json,
    whole_number,
)

if TYPE_CHECKING:
    from blindai.attestation.evidence import AttestationDocument
    from blindai.attestation.policy import Policy

MAX_PROOF_BYTES = 4 << 20
MAX_OPENING_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A publishable proof: a receipt, and the evidence for the keys that signed it.

    Attributes:
        document: keyset and evidence; the path of the client's nonce lives in the opening, not here.
    """

    receipt: str
    document: AttestationDocument

    def encode(self) -> bytes:
        """`proof.json`."""
        members = {"version": 1, "receipt": self.receipt, "attestation": document_members(self.document)}
        return json.dumps(members, indent=1).encode() + b"\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `proof.json`."""
        Path(path).write_bytes(self.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What opens a proof: private, since it holds the user's data.

    Attributes:
        response_header_length: length of the answer's JSON header, which precedes its binary tensors.
        nonce: the client's nonce, if the evidence is fresh; it convinces only its maker.
    """

    salt: bytes = field(repr=False)
    request_body: bytes = field(repr=False)
    response_body: bytes = field(repr=False)
    response_header_length: int
    nonce: bytes | None = field(repr=False)
    batch: BatchProof | None = field(repr=False)

    def encode(self) -> bytes:
        """`proof.opening.json`; `outputs` repeats the answer for people, and is compared with it when verified."""
        members = {
            "version": 1,
            "salt": base64url_encode(self.salt),
            "request": base64url_encode(self.request_body),
            "response": base64url_encode(self.response_body),
            "response_header_length": self.response_header_length,
            "nonce": None if self.nonce is None else base64url_encode(self.nonce),
            "batch": None if self.batch is None else _batch_members(self.batch),
            "outputs": opened_outputs(self),
        }
        return json.dumps(members, indent=1).encode() + b"\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `proof.opening.json`, readable by its owner only, whatever was there under that name before."""
        write_private(Path(path), self.encode())


def write_private(path: Path, data: bytes) -> None:
    """Write what its owner alone may read.

    Through a new file beside it: one that exists may be readable to others, or a link to elsewhere.
    """
    beside = path.with_name(f".blindai-{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def opened_outputs(opening: Opening) -> list[dict[str, Any]]:
    """The answer's tensors as text, exact to the last digit.

    Raises:
        InvalidInputError: the answer is not an inference response.
    """
    response = decode_infer_response(opening.response_body, opening.response_header_length)
    return [
        {
            "name": tensor.name,
            "datatype": str(tensor.datatype),
            "shape": list(tensor.shape),
            "data": [_text(value) for value in tensor.as_flat()],
        }
        for tensor in response.outputs
    ]


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)


def _batch_members(batch: BatchProof) -> dict[str, Any]:
    return {"index": batch.index, "count": batch.count, "path": [base64url_encode(node) for node in batch.path]}


def parse_proof(data: bytes) -> Proof:
    """Read `proof.json`.

    Raises:
        InvalidReceiptError: anything but exactly a proof.
        MalformedEvidenceError: its evidence is malformed.
    """
    try:
        members = require_members(
            strict_json(data, max_bytes=MAX_PROOF_BYTES), frozenset({"version", "receipt", "attestation"})
        )
        if whole_number(members["version"]) != 1 or not isinstance(members["receipt"], str):
            raise ValueError("not a proof of version 1")  # noqa: TRY301  # one way to word it
    except ValueError as error:
        raise InvalidReceiptError(f"the proof is malformed: {error}") from None
    return Proof(receipt=members["receipt"], document=parse_document_members(members["attestation"]))


def parse_opening(data: bytes) -> Opening:
    """Read `proof.opening.json`, and check that the outputs shown in it are those of its answer.

    Raises:
        InvalidReceiptError: anything but exactly an opening.
    """
    names = frozenset({"version", "salt", "request", "response", "response_header_length", "nonce", "batch", "outputs"})
    try:
        members = require_members(strict_json(data, max_bytes=MAX_OPENING_BYTES), names)
        if whole_number(members["version"]) != 1:
            raise ValueError("not an opening of version 1")  # noqa: TRY301  # one way to word it
        opening = Opening(
            salt=exact_bytes(members["salt"], 32),
            request_body=base64url_decode(members["request"]),
            response_body=base64url_decode(members["response"]),
            response_header_length=whole_number(members["response_header_length"]),
            nonce=None if members["nonce"] is None else exact_bytes(members["nonce"], 32),
            batch=None if members["batch"] is None else _parse_batch(members["batch"]),
        )
        shown = opened_outputs(opening)
    except (ValueError, InvalidInputError) as error:
        raise InvalidReceiptError(f"the opening is malformed: {error}") from None
    if members["outputs"] != shown:
        raise InvalidReceiptError("the outputs shown in the opening are not those of its answer")
    return opening


def _parse_batch(value: object) -> BatchProof:
    members = require_members(value, frozenset({"index", "count", "path"}))
    return BatchProof(
        index=whole_number(members["index"]),
        count=whole_number(members["count"]),
        path=tuple(exact_bytes(node, 32) for node in bounded_list(members["path"])),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProof:
    """What a proof was found to show; see docs/spec/receipt.md for what it does not."""

    receipt: Receipt
    keyset: AttestedKeyset
    opening: Opening | None = field(repr=False)


def verify_proof(
    proof: Proof, policy: Policy, *, service: str, now: float, opening: Opening | None = None
) -> VerifiedProof:
    """Verify a proof made by anybody, at any time, without the server.

    Args:
        proof: the published part.
        policy: what this verifier accepts as evidence.
        service: the service that the keyset must name.
        now: the time at which endorsements and the operator's admission are judged, in Unix seconds.
        opening: the private part; then both bodies are checked against the receipt.

    Raises:
        RejectedEvidenceError: the evidence is not acceptable, or not about these keys.
        InvalidReceiptError: the receipt is not signed by these keys, contradicts them, or the opening is another's.
    """
    keyset = accept_published(proof.document, policy, service=service, now=now)
    receipt = verify_receipt(proof.receipt, public_key=keyset.keyset.receipt_public_key, keyset_id=keyset.keyset_id)
    if not keyset.keyset.not_before * 1000 <= receipt.start_ms < keyset.keyset.not_after * 1000:
        raise InvalidReceiptError("the receipt's start lies outside its keyset's lifetime")
    if receipt.runtime_policy != keyset.keyset.runtime.digest or not receipt.complete:
        raise InvalidReceiptError("the receipt names another runtime policy, or a request that was not read to its end")
    if receipt.model:
        require_engine(receipt.model, keyset.keyset)
    if opening:
        opens(opening.salt, request_body=opening.request_body, response_body=opening.response_body, receipt=receipt)
        _check_nonce(proof, keyset, opening)
    return VerifiedProof(receipt=receipt, keyset=keyset, opening=opening)


def _check_nonce(proof: Proof, keyset: AttestedKeyset, opening: Opening) -> None:
    """The nonce convinces whoever made it: whether the keys were made for it can still be recomputed."""
    if proof.document.mode is Mode.FRESH:
        if opening.nonce is None:
            raise InvalidReceiptError("the opening of a fresh proof holds the nonce and its path")
        check_nonce_path(opening.batch, keyset.keyset, opening.nonce)
