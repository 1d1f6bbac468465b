"""What state Intel says a platform, its TDX module and its quoting enclave are in, and what that comes to.

Source: Intel's "SGX & TDX DCAP Quote Verification Library", SW requirements 4.1.2.4.17 and 4.1.2.5, in our words.
Leaves out: whether the collateral is Intel's (intel/chain.py), and which states are accepted (intel/policy.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.intel.collateral import TcbStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.attestation.intel.collateral import (
        EnclaveLevel,
        ModuleIdentity,
        PlatformLevel,
        QeIdentity,
        TcbInfo,
        Verdict,
    )
    from blindai.attestation.intel.pck import Pck

# Places in TEE_TCB_SVN ("Intel TDX Module Base Architecture", TEE_TCB_INFO).
_MODULE_SVN, _MODULE_VERSION, _SEAM_MICROCODE = 0, 1, 2

_IF_COMPONENT_OUT_OF_DATE = {
    TcbStatus.UP_TO_DATE: TcbStatus.OUT_OF_DATE,
    TcbStatus.SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE,
    TcbStatus.CONFIGURATION_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}
_CONFIGURATION_NEEDED = frozenset(
    {
        TcbStatus.CONFIGURATION_NEEDED,
        TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
        TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    }
)
_NOT_OUT_OF_DATE = frozenset(_IF_COMPONENT_OUT_OF_DATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbState:
    """What a platform's state comes to; None where Intel has no level so low.

    Attributes:
        status: what to judge by.
        launch: the state that a TD was launched in; for an enclave the only one there is.
        current: the state that a TD's platform is in now; None also where a quote does not say (before version 5).
        platform: what the levels of the platform say alone.
        module: what the levels of the TDX module say alone; None also where it has none.
        qe: what the levels of the quoting enclave say alone.
        date: Unix seconds, the oldest of the matched levels'.
        advisories: what applies to it, each once, sorted.
    """

    status: TcbStatus | None
    launch: TcbStatus | None
    current: TcbStatus | None
    platform: TcbStatus | None
    module: TcbStatus | None
    qe: TcbStatus | None
    date: float | None
    advisories: tuple[str, ...]


def sgx_state(pck: Pck, qe_svn: int, tcb_info: TcbInfo, qe_identity: QeIdentity) -> TcbState:
    """The state of an enclave's platform."""
    platform = _platform_verdict(pck, tcb_info.levels)
    qe = _enclave_verdict(qe_svn, qe_identity.levels)
    status = _converge(platform, (qe,))
    return TcbState(
        status=status,
        launch=status,
        current=None,
        platform=_status(platform),
        module=None,
        qe=_status(qe),
        date=_oldest(status, (platform, qe)),
        advisories=_advisories(status, (platform, qe)),
    )


def tdx_state(
    pck: Pck,
    qe_svn: int,
    tcb_info: TcbInfo,
    qe_identity: QeIdentity,
    *,
    tee_tcb_svn: bytes,
    tee_tcb_svn2: bytes | None,
) -> TcbState:
    """The state of a TD's platform: as it was launched, and as it is now if the quote says that too."""
    qe = _enclave_verdict(qe_svn, qe_identity.levels)
    launch = _tdx_parts(pck, tee_tcb_svn, tcb_info, qe)
    current = None if tee_tcb_svn2 is None else _tdx_parts(pck, tee_tcb_svn2, tcb_info, qe)
    status = launch.status
    if tee_tcb_svn2 is not None and launch.only_module_is_old and _is_latest(tee_tcb_svn2, tcb_info):
        status = _advise_relaunch(launch)
    return TcbState(
        status=status,
        launch=launch.status,
        current=current.status if current else None,
        platform=_status(launch.platform),
        module=_status(launch.module),
        qe=_status(qe),
        date=_oldest(launch.status, launch.all()),
        advisories=_advisories(launch.status, launch.all()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _TdxParts:
    """The verdicts on the parts of a TD's platform at one TEE_TCB_SVN; `sgx` is the platform's without TDX."""

    sgx: Verdict | None
    platform: Verdict | None
    module: Verdict | None
    has_module_levels: bool
    qe: Verdict | None

    def all(self) -> tuple[Verdict | None, ...]:
        return (self.platform, self.module, self.qe) if self.has_module_levels else (self.platform, self.qe)

    @property
    def status(self) -> TcbStatus | None:
        platform, *components = self.all()
        return _converge(platform, components)

    @property
    def only_module_is_old(self) -> bool:
        """4.1.2.4.17.4.3, first half."""
        return (
            _status(self.sgx) in _NOT_OUT_OF_DATE
            and _status(self.module) is TcbStatus.OUT_OF_DATE
            and _status(self.qe) is TcbStatus.UP_TO_DATE
            and self.status in {TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED}
        )


def _tdx_parts(pck: Pck, svn: bytes, tcb_info: TcbInfo, qe: Verdict | None) -> _TdxParts:
    identity = module_identity(tcb_info, svn)
    return _TdxParts(
        sgx=_platform_verdict(pck, tcb_info.levels),
        platform=_platform_verdict(pck, tcb_info.levels, svn),
        module=_enclave_verdict(svn[_MODULE_SVN], identity.levels if identity else ()),
        has_module_levels=svn[_MODULE_VERSION] > 0,
        qe=qe,
    )


def module_identity(tcb_info: TcbInfo, tee_tcb_svn: bytes) -> ModuleIdentity | None:
    """What Intel says that the TDX module of this TEE_TCB_SVN must be, if it knows it."""
    version = tee_tcb_svn[_MODULE_VERSION]
    name = f"TDX_{version:02X}" if version else ""
    return next((identity for identity in tcb_info.modules if identity.name.upper() == name), None)


def _platform_verdict(pck: Pck, levels: Sequence[PlatformLevel], svn: bytes | None = None) -> Verdict | None:
    """The first level that every SVN reaches; without `svn` as for SGX, whose levels have no TDX components."""
    return next((level.verdict for level in levels if _reaches(pck, level, svn)), None)


def _reaches(pck: Pck, level: PlatformLevel, svn: bytes | None) -> bool:
    if pck.pce_svn < level.pce_svn or not _all_reach(pck.components, level.sgx_components):
        return False
    if svn is None:
        return True
    # From module version 1 on, the module has levels of its own, and the first two bytes are judged by those.
    begin = 2 if svn[_MODULE_VERSION] else 0
    return _all_reach(svn[begin:], level.tdx_components[begin:])


def _all_reach(found: Sequence[int], least: Sequence[int]) -> bool:
    return all(one >= other for one, other in zip(found, least, strict=True))


def _enclave_verdict(isv_svn: int, levels: Sequence[EnclaveLevel]) -> Verdict | None:
    return next((level.verdict for level in levels if isv_svn >= level.isv_svn), None)


def _converge(platform: Verdict | None, components: Sequence[Verdict | None]) -> TcbStatus | None:
    """4.1.2.5: a platform is no better than what runs on it."""
    if platform is None or any(component is None for component in components):
        return None
    statuses = {component.status for component in components if component}
    if TcbStatus.REVOKED in statuses:
        return TcbStatus.REVOKED
    if statuses - {TcbStatus.UP_TO_DATE}:
        return _IF_COMPONENT_OUT_OF_DATE.get(platform.status, platform.status)
    return platform.status


def _is_latest(svn: bytes, tcb_info: TcbInfo) -> bool:
    """4.1.2.4.17.4.3, second half: the module and its microcode are those of Intel's highest level."""
    latest = tcb_info.levels[0].tdx_components
    least = latest[_MODULE_SVN]
    if svn[_MODULE_VERSION]:
        identity = module_identity(tcb_info, svn)
        if identity is None or not identity.levels:
            return False
        least = identity.levels[0].isv_svn
    return svn[_MODULE_SVN] >= least and svn[_SEAM_MICROCODE] >= latest[_SEAM_MICROCODE]


def _advise_relaunch(launch: _TdxParts) -> TcbStatus:
    if {launch.status, _status(launch.sgx)} & _CONFIGURATION_NEEDED:
        return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    return TcbStatus.TD_RELAUNCH_ADVISED


def _status(verdict: Verdict | None) -> TcbStatus | None:
    return verdict.status if verdict else None


def _oldest(status: TcbStatus | None, parts: Sequence[Verdict | None]) -> float | None:
    return min((part.date for part in parts if part), default=None) if status else None


def _advisories(status: TcbStatus | None, parts: Sequence[Verdict | None]) -> tuple[str, ...]:
    """Below the lowest level Intel names no advisories, and that is no good sign."""
    return tuple(sorted({advisory for part in parts if part for advisory in part.advisories})) if status else ()
