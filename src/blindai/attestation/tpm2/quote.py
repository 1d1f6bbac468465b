"""A TPM's quote: what it says, whether its key said it, and which PCR values it is about (TPM 2.0 Library).

Shared by every TEE that shows a quote; codes begin with that TEE's name.
Leaves out: the key's attributes and certificates (tpm2/keys.py, tpm2/certificates.py), what PCR values mean.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge
from blindai.attestation.exact_reader import ExactReader
from blindai.attestation.tpm2.keys import (
    ACCEPTED_DIGESTS,
    DIGEST_BYTES,
    PublicKey,
    TpmSignature,
    digest_name,
    is_signed,
    parsing_tpm,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding

# Part 2, TPMS_ATTEST: u32 magic ‖ u16 type ‖ TPM2B qualifiedSigner ‖ TPM2B extraData ‖ TPMS_CLOCK_INFO
#   ‖ u64 firmwareVersion ‖ TPMS_QUOTE_INFO (TPML_PCR_SELECTION ‖ TPM2B pcrDigest)
MAGIC = 0xFF544347  # TPM_GENERATED_VALUE: a TPM signs no caller's data that begins so
ATTEST_QUOTE = 0x8018
_MAX_NAME = 66  # u16 and SHA-512
_SELECT_BYTES = 3  # PC Client Platform TPM Profile: 24 PCRs
PCRS = range(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE over one bank of PCRs.

    Attributes:
        qualified_signer: the signing key's qualified name (Part 1, "Qualified Names").
        extra_data: the caller's bytes, at most 66: the binding.
        clock: milliseconds for which this TPM has been powered.
        reset_count: how often the TPM was reset, so how often the machine booted; like the next one and the
            firmware's version it is obfuscated if the key is in the owner's or null hierarchy.
        restart_count: how often it was restarted or resumed since then.
        safe: whether the clock cannot have been set back by a loss of power.
        firmware_version: the TPM's own, in its vendor's form.
        bank: the digest of the quoted bank, for example `sha256`.
        selection: the quoted PCRs' indices, ascending.
        pcr_digest: the digest over their values.
        signed: the bytes that the signature is over.
    """

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    bank: str
    selection: tuple[int, ...]
    pcr_digest: bytes
    signed: bytes = field(repr=False)


def parse_quote(raw: bytes, *, tee: str) -> Quote:
    """Read exactly a TPMS_ATTEST that quotes PCRs of one bank.

    Raises:
        MalformedEvidenceError: anything else, code `<tee>.quote_format`.
    """
    with parsing_tpm(tee, "quote"):
        reader = ExactReader(raw)
        _require("the magic", reader.number(4, "the magic"), MAGIC)
        _require("the type", reader.number(2, "the type"), ATTEST_QUOTE)
        signer = reader.sized(2, "the qualified signer", limit=_MAX_NAME)
        extra_data = reader.sized(2, "the extra data", limit=_MAX_NAME)
        clock = reader.number(8, "the clock")
        reset_count = reader.number(4, "the reset count")
        restart_count = reader.number(4, "the restart count")
        safe = _yes_or_no(reader.number(1, "the flag safe"))
        firmware_version = reader.number(8, "the firmware version")
        bank, selection = _take_selection(reader)
        pcr_digest = reader.sized(2, "the PCR digest", limit=_MAX_NAME)
        reader.finish("the quote")
    return Quote(
        qualified_signer=signer,
        extra_data=extra_data,
        clock=clock,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=safe,
        firmware_version=firmware_version,
        bank=bank,
        selection=selection,
        pcr_digest=pcr_digest,
        signed=raw,
    )


def _require(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{what} is {found:#x} instead of {expected:#x}")


def _yes_or_no(value: int) -> bool:
    if value > 1:
        raise ValueError(f"the flag safe is {value}")
    return value == 1


def _take_selection(reader: ExactReader) -> tuple[str, tuple[int, ...]]:
    """TPML_PCR_SELECTION (Part 2) with exactly one bank: one way to say which PCRs are meant."""
    _require("the number of banks", reader.number(4, "the number of banks"), 1)
    bank = digest_name(reader.number(2, "the bank"))
    _require("the size of the selection", reader.number(1, "the size of the selection"), _SELECT_BYTES)
    bits = int.from_bytes(reader.take(_SELECT_BYTES, "the selection"), "little")
    selection = tuple(index for index in PCRS if bits >> index & 1)
    if not selection:
        raise ValueError("no PCR is selected")
    return bank, selection


def judge_quote(
    quote: Quote, signature: TpmSignature, key: PublicKey, pcr_values: bytes, *, tee: str
) -> Iterator[Finding]:
    """Whether this key signed the quote, and the quote is about these values; all of it is a matter of authenticity.

    Args:
        quote: as parsed.
        signature: as parsed, or made of a bare RSA signature.
        key: the attestation key.
        pcr_values: the quoted PCRs' values, concatenated in ascending order.
        tee: the first half of the codes `<tee>.digest_algorithm`, `<tee>.quote_signature`, `<tee>.pcr_digest`.
    """
    digests = (quote.bank, signature.scheme.digest)
    yield judge_digests(digests, tee=tee)
    signed = f"the attestation key's signature ({signature.scheme.text}) over the quote"
    is_good = is_signed(quote.signed, signature, key)
    yield judge(
        holds=is_good,
        code=f"{tee}.quote_signature",
        expected=signed,
        found=signed if is_good else "a signature that does not verify",
        why="Only what the attestation key signed was said by the TPM.",
    )
    wanted = len(quote.selection) * DIGEST_BYTES[quote.bank]
    found = hashlib.new(signature.scheme.digest, pcr_values).digest()
    yield judge(
        holds=len(pcr_values) == wanted and found == quote.pcr_digest,
        code=f"{tee}.pcr_digest",
        expected=f"{wanted} bytes of PCR values with the digest {quote.pcr_digest.hex()}",
        found=f"{len(pcr_values)} bytes with the digest {found.hex()}",
        why="A quote holds only a digest; the values beside it count if they have that digest.",
    )


def judge_digests(digests: Sequence[str], *, tee: str) -> Finding:
    """Whether each is a digest that still resists collisions."""
    return judge(
        holds=all(digest in ACCEPTED_DIGESTS for digest in digests),
        code=f"{tee}.digest_algorithm",
        expected=f"none but {', '.join(ACCEPTED_DIGESTS)}",
        found=", ".join(dict.fromkeys(digests)),
        why="Collisions of SHA-1 can be made, so two different boots could have one value.",
        hint="let the server quote its SHA-256 bank, with a key that signs with SHA-256",
    )


def split_pcrs(quote: Quote, pcr_values: bytes) -> dict[int, bytes]:
    """Each quoted PCR's value by its index; the values must have passed `judge_quote`."""
    size = DIGEST_BYTES[quote.bank]
    return {index: pcr_values[place * size : (place + 1) * size] for place, index in enumerate(quote.selection)}
