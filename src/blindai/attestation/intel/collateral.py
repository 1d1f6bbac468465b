"""Reads Intel's TCB info and QE identity: which platform states, TDX modules and quoting enclaves Intel vouches for.

Source: Intel "Provisioning Certification Service for ECDSA Attestation" API v4, TCB info v3 and enclave identity v2.
Both are signed over exactly their JSON bytes, so they are read from those bytes and never written again.
Members that are not named here are passed over: Intel adds some, and signs them.
Leaves out: the signatures (intel/chain.py), and what a level means for a platform (intel/tcb.py).
"""

from __future__ import annotations

import enum
import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from blindai.errors import MalformedEvidenceError
from blindai.wire import printable, strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_COLLATERAL_BYTES = 256 << 10
MAX_LEVELS = 256
MAX_ADVISORIES = 1024
COMPONENTS = 16
# What a document says that it is for: `id` of TCB info, and of a QE identity.
SGX, TDX = "SGX", "TDX"
QE, TD_QE = "QE", "TD_QE"
_TCB_TYPE = 0  # how levels are compared: component by component, as in intel/tcb.py; no other type is specified
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*\Z")

_Read = TypeVar("_Read")


class TcbStatus(enum.StrEnum):
    """What Intel says of a TCB, and the two states that a verifier of TDs adds (Intel QVL, 4.1.2.4.17)."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"


_SIGNED_STATUSES = {status.value: status for status in TcbStatus if not status.value.startswith("TDRelaunch")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What Intel says of one level.

    Attributes:
        date: Unix seconds; security advisories published later are not in this judgement.
    """

    status: TcbStatus
    date: float
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLevel:
    """A platform's least SVNs for a verdict; the TDX components are empty in SGX's TCB info."""

    sgx_components: tuple[int, ...]
    pce_svn: int
    tdx_components: tuple[int, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveLevel:
    """The least ISVSVN, of a QE or a TDX module, for a verdict."""

    isv_svn: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """A TDX module that Intel made: `TDX_01` and so on, or without a name the one of version 0."""

    name: str
    mr_signer: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[EnclaveLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """When a document was issued and is to be replaced, in Unix seconds, and by which evaluation of Intel's."""

    kind: str
    version: int
    issued: float
    next_update: float
    evaluation_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """The levels of one kind of platform, the highest first."""

    issue: Issue
    fmspc: bytes
    pce_id: bytes
    levels: tuple[PlatformLevel, ...]
    modules: tuple[ModuleIdentity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """What a quoting enclave's report must hold, and what its SVN is worth."""

    issue: Issue
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[EnclaveLevel, ...]


@functools.lru_cache(maxsize=16)  # it takes a millisecond, and is the same for every platform of a kind
def parse_tcb_info(data: bytes, *, tee: str) -> TcbInfo:
    """Read TCB info of at most 256 KiB.

    Raises:
        MalformedEvidenceError: anything else.
    """
    return _parse(data, _parse_tcb_info, tee=tee, what="Intel's TCB info")


@functools.lru_cache(maxsize=16)  # it takes a millisecond, and is the same for every platform of a kind
def parse_qe_identity(data: bytes, *, tee: str) -> QeIdentity:
    """Read a QE identity of at most 256 KiB.

    Raises:
        MalformedEvidenceError: anything else.
    """
    return _parse(data, _parse_qe_identity, tee=tee, what="Intel's QE identity")


def _parse(data: bytes, read: Callable[[dict[str, Any]], _Read], *, tee: str, what: str) -> _Read:
    try:
        return read(_object(strict_json(data, max_bytes=MAX_COLLATERAL_BYTES)))
    except (ValueError, KeyError) as error:
        found = f"none of {error}" if isinstance(error, KeyError) else str(error)
        raise MalformedEvidenceError(
            f"expected {what}, found {found}", finding_code=f"{tee}.collateral_format", tee=tee
        ) from None


def _parse_tcb_info(members: dict[str, Any]) -> TcbInfo:
    _whole(members["tcbType"], _TCB_TYPE)
    has_tdx = members["id"] == TDX
    levels = [_platform_level(level, has_tdx=has_tdx) for level in map(_object, _list(members["tcbLevels"]))]
    modules = [_module_identity(_object(module)) for module in _list(members.get("tdxModuleIdentities", []))]
    if has_tdx:  # without it nobody would say whose a module of version 0 must be
        modules.append(_module_identity({"id": "", "tcbLevels": [], **_object(members["tdxModule"])}))
    # Intel's own verifier sorts them, and what is matched first depends on it.
    levels.sort(key=lambda level: (level.sgx_components, level.pce_svn, level.tdx_components), reverse=True)
    return TcbInfo(
        issue=_issue(members),
        fmspc=_hex(members["fmspc"], 6),
        pce_id=_hex(members["pceId"], 2),
        levels=tuple(levels),
        modules=tuple(modules),
    )


def _parse_qe_identity(members: dict[str, Any]) -> QeIdentity:
    return QeIdentity(
        issue=_issue(members),
        misc_select=_hex(members["miscselect"], 4),
        misc_select_mask=_hex(members["miscselectMask"], 4),
        attributes=_hex(members["attributes"], 16),
        attributes_mask=_hex(members["attributesMask"], 16),
        mr_signer=_hex(members["mrsigner"], 32),
        isv_prod_id=_whole(members["isvprodid"], 0xFFFF),
        levels=_enclave_levels(members["tcbLevels"]),
    )


def _issue(members: dict[str, Any]) -> Issue:
    return Issue(
        kind=printable(members["id"]),
        version=_whole(members["version"], 0xFF),
        issued=_time(members["issueDate"]),
        next_update=_time(members["nextUpdate"]),
        evaluation_number=_whole(members["tcbEvaluationDataNumber"], 0xFFFFFFFF),
    )


def _platform_level(members: dict[str, Any], *, has_tdx: bool) -> PlatformLevel:
    tcb = _object(members["tcb"])
    return PlatformLevel(
        sgx_components=_components(tcb["sgxtcbcomponents"]),
        pce_svn=_whole(tcb["pcesvn"], 0xFFFF),
        tdx_components=_components(tcb["tdxtcbcomponents"]) if has_tdx else (),
        verdict=_verdict(members),
    )


def _components(value: object) -> tuple[int, ...]:
    components = _list(value)
    if len(components) != COMPONENTS:
        raise ValueError(f"{len(components)} TCB components instead of {COMPONENTS}")
    return tuple(_whole(_object(component)["svn"], 0xFF) for component in components)


def _module_identity(members: dict[str, Any]) -> ModuleIdentity:
    return ModuleIdentity(
        name=printable(members["id"]) if members["id"] else "",
        mr_signer=_hex(members["mrsigner"], 48),
        attributes=_hex(members["attributes"], 8),
        attributes_mask=_hex(members["attributesMask"], 8),
        levels=_enclave_levels(members["tcbLevels"]),
    )


def _enclave_levels(value: object) -> tuple[EnclaveLevel, ...]:
    levels = [
        EnclaveLevel(isv_svn=_whole(_object(level["tcb"])["isvsvn"], 0xFFFF), verdict=_verdict(level))
        for level in map(_object, _list(value))
    ]
    return tuple(sorted(levels, key=lambda level: level.isv_svn, reverse=True))


def _verdict(members: dict[str, Any]) -> Verdict:
    status = members["tcbStatus"]
    if not isinstance(status, str) or status not in _SIGNED_STATUSES:
        raise ValueError("a TCB status that is not known")
    advisories = _list(members.get("advisoryIDs", []), MAX_ADVISORIES)
    return Verdict(
        status=_SIGNED_STATUSES[status],
        date=_time(members["tcbDate"]),
        advisories=tuple(printable(advisory) for advisory in advisories),
    )


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("something else where an object stands")  # noqa: TRY004  # callers wrap one exception type
    return value


def _list(value: object, maximum: int = MAX_LEVELS) -> list[Any]:
    if not isinstance(value, list) or len(value) > maximum:
        raise ValueError(f"something else where a list of at most {maximum} stands")
    return value


def _whole(value: object, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise ValueError(f"something else where a number of at most {maximum} stands")
    return value


def _hex(value: object, size: int) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * size or not _HEX.match(value):
        raise ValueError(f"something else where {2 * size} hexadecimal digits stand")
    return bytes.fromhex(value)


def _time(value: object) -> float:
    if not isinstance(value, str) or not _TIME.match(value):
        raise ValueError("something else where a time stands")
    return datetime.fromisoformat(value).astimezone(UTC).timestamp()
