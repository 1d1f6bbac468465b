"""What a policy may say about a TPM's PCRs: their bank, exactly which are quoted, and their values.

Shared by every TEE that shows a TPM's quote; codes begin with that TEE's name.
Leaves out: whether the values are the quoted ones (tpm2/quote.py), and what they mean (tpm2/boot_events.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.expectations import one_of, read_accepted
from blindai.attestation.policy_file import Skip
from blindai.attestation.tpm2.keys import ACCEPTED_DIGESTS, DIGEST_BYTES
from blindai.attestation.tpm2.quote import PCRS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section

PCR_FIELDS = ("bank", "required_pcrs", "pcrs")
_INDICES = {str(index): index for index in PCRS}
_HINT = "the machine booted something else than the policy names; find out what before changing the policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrExpectation:
    """What a policy accepts of a quote's PCRs.

    Attributes:
        bank: the digest of the bank that must be quoted.
        selection: the indices that must be quoted, ascending, no more and no fewer.
        values: for each index that is judged, its accepted values.
    """

    bank: str
    selection: tuple[int, ...] | Skip
    values: tuple[tuple[int, tuple[bytes, ...]], ...] | Skip


def read_pcrs(section: Section) -> PcrExpectation:
    """The fields `PCR_FIELDS` of a TEE's table.

    Raises:
        InvalidPolicyError: a field is another.
    """
    bank = section.choice("bank", {name: name for name in ACCEPTED_DIGESTS})
    return PcrExpectation(
        bank=bank,
        selection=_read_selection(section),
        values=_read_values(section.section("pcrs"), DIGEST_BYTES[bank]),
    )


def _read_selection(section: Section) -> tuple[int, ...] | Skip:
    value = section.members["required_pcrs"]
    if isinstance(value, dict):
        return section.section("required_pcrs").skip()
    is_list = isinstance(value, list) and bool(value) and all(type(index) is int for index in value)
    if not is_list or not set(value) <= set(PCRS) or len(set(value)) != len(value):
        raise section.error("must be a list of different PCR indices from 0 to 23", "required_pcrs")
    return tuple(sorted(value))


def _read_values(section: Section, size: int) -> tuple[tuple[int, tuple[bytes, ...]], ...] | Skip:
    if "skip" in section.members:
        return section.skip()
    for key in section.members:
        if key not in _INDICES:
            raise section.error("is not the index of a PCR, 0 to 23", key)
    if not section.members:
        raise section.error('names no PCR; say so with `skip = "reason"`')
    return tuple(sorted((_INDICES[key], _read_digests(section, key, size)) for key in section.members))


def _read_digests(section: Section, key: str, size: int) -> tuple[bytes, ...]:
    accepted = read_accepted(section, key, size)
    if isinstance(accepted, Skip):
        raise section.error("is left out by not naming it", key)
    return accepted


def judge_pcrs(expectation: PcrExpectation, *, bank: str, pcrs: Mapping[int, bytes], tee: str) -> Iterator[Finding]:
    """Compare the quoted PCRs with the policy: `<tee>.bank`, `<tee>.pcr_selection`, and `<tee>.pcrs` for each index.

    Args:
        expectation: what the policy accepts.
        bank: the quoted bank.
        pcrs: the quoted values by index.
        tee: the first half of the codes.
    """
    yield judge(
        holds=bank == expectation.bank,
        code=f"{tee}.bank",
        expected=f"the bank {expectation.bank}",
        found=f"the bank {bank}",
        why="Reference values are digests of one bank.",
    )
    yield _judge_selection(expectation.selection, tuple(pcrs), tee)
    yield from _judge_values(expectation.values, pcrs, tee)


def _judge_selection(selection: tuple[int, ...] | Skip, quoted: tuple[int, ...], tee: str) -> Finding:
    code, why = f"{tee}.pcr_selection", "What is not quoted is not known, and what was measured there can hide."
    if isinstance(selection, Skip):
        return leave_out(code=code, reason=selection.reason, found=_list(quoted), why=why)
    return judge(
        holds=quoted == selection,
        code=code,
        expected=f"exactly {_list(selection)}",
        found=_list(quoted),
        why=why,
        hint="the server quotes other PCRs than the policy's `required_pcrs`",
    )


def _judge_values(
    values: tuple[tuple[int, tuple[bytes, ...]], ...] | Skip, pcrs: Mapping[int, bytes], tee: str
) -> Iterator[Finding]:
    code, why = f"{tee}.pcrs", "A PCR's value stands for everything that was measured into it, in order."
    if isinstance(values, Skip):
        yield leave_out(code=code, reason=values.reason, found=_list(tuple(pcrs)), why=why)
        return
    for index, accepted in values:
        found = pcrs.get(index)
        yield judge(
            holds=found in accepted,
            code=code,
            expected=f"PCR {index} is {one_of(value.hex() for value in accepted)}",
            found="not quoted" if found is None else found.hex(),
            why=why,
            hint=_HINT,
        )


def _list(indices: tuple[int, ...]) -> str:
    return f"PCRs {', '.join(str(index) for index in indices)}"
