"""Reads one file of Intel's quote collateral: a JSON object with the members of dcap-qvl's `QuoteCollateralV3`.

Certificates and signed documents stand in it as text, lists and signatures in hexadecimal.
Leaves out: the judgement (attestation/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.intel.endorsements import ALL_NAMES, PCK_CHAIN
from blindai.errors import MalformedEvidenceError
from blindai.wire import strict_json

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 1 << 20
_HEX_ENDINGS = ("_crl", "_signature")
_OTHER_NAMES = {"pck_certificate_chain": PCK_CHAIN}


def read_collateral(path: Path, *, tee: str) -> tuple[tuple[str, bytes], ...]:
    """The file's members as endorsements; one that is null is not there.

    Raises:
        MalformedEvidenceError: not such an object, or a member that is not known.
        OSError: the file cannot be read.
    """
    try:
        members = strict_json(path.read_bytes(), max_bytes=MAX_FILE_BYTES)
        if not isinstance(members, dict):
            raise ValueError("something else than an object")  # noqa: TRY004, TRY301  # wrapped just below
        present = {name: value for name, value in members.items() if value is not None}
        return tuple(sorted(_read_member(_OTHER_NAMES.get(name, name), value) for name, value in present.items()))
    except ValueError as error:
        raise MalformedEvidenceError(
            f"expected {path} to hold Intel's quote collateral, found {error}",
            finding_code=f"{tee}.collateral_format",
            tee=tee,
        ) from None


def _read_member(name: str, value: object) -> tuple[str, bytes]:
    if name not in ALL_NAMES or not isinstance(value, str):
        raise ValueError(f"the member {name}")
    return name, bytes.fromhex(value) if name.endswith(_HEX_ENDINGS) else value.encode("utf-8")
