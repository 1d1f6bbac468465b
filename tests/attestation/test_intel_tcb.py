"""The state of a platform: which level is the first that it reaches, and what module, QE and relaunch make of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes.intel import ADVISORY, TEE_TCB_SVN, level, module, qe_identity, svn_level, tcb_info
from fakes.intel_pki import COMPONENTS, FMSPC, PCE_SVN

from blindai.attestation.intel.collateral import QeIdentity, TcbInfo, TcbStatus, parse_qe_identity, parse_tcb_info
from blindai.attestation.intel.pck import Pck
from blindai.attestation.intel.tcb import TcbState, module_identity, sgx_state, tdx_state

STATUS = {status.value: status for status in TcbStatus}


def platform(components: tuple[int, ...] = COMPONENTS, pce_svn: int = PCE_SVN) -> Pck:
    return Pck(
        ppid=bytes(16),
        components=components,
        pce_svn=pce_svn,
        cpu_svn=bytes(16),
        pce_id=bytes(2),
        fmspc=FMSPC,
        sgx_type=0,
        platform_instance_id=None,
        dynamic_platform=None,
        cached_keys=None,
        smt_enabled=None,
    )


def info_of(tee: str, **changes: Any) -> TcbInfo:
    return parse_tcb_info(json.dumps(tcb_info(tee, **changes)).encode(), tee=tee)


def qe_of(tee: str, *levels: dict[str, Any]) -> QeIdentity:
    changes = {"tcbLevels": list(levels)} if levels else {}
    return parse_qe_identity(json.dumps(qe_identity(tee, **changes)).encode(), tee=tee)


def sgx_status(pck: Pck, *levels: dict[str, Any], qe: QeIdentity | None = None) -> TcbState:
    return sgx_state(pck, 7, info_of("sgx", tcbLevels=list(levels)), qe or qe_of("sgx"))


def td_state(
    svn: bytes = TEE_TCB_SVN, svn2: bytes | None = None, qe: QeIdentity | None = None, **changes: Any
) -> TcbState:
    return tdx_state(platform(), 7, info_of("tdx", **changes), qe or qe_of("tdx"), tee_tcb_svn=svn, tee_tcb_svn2=svn2)


def svn(*first: int) -> bytes:
    return bytes(first) + bytes(16 - len(first))


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(16))
def test_each_component_counts(at: int) -> None:
    lower = (*COMPONENTS[:at], COMPONENTS[at] - 1, *COMPONENTS[at + 1 :])
    assert sgx_status(platform(), level()).status is TcbStatus.UP_TO_DATE
    assert sgx_status(platform(lower), level()).status is None
    assert sgx_status(platform(lower), level(), level("OutOfDate", sgx=lower)).status is TcbStatus.OUT_OF_DATE


def test_the_pce_counts() -> None:
    assert sgx_status(platform(pce_svn=PCE_SVN - 1), level()).status is None
    assert sgx_status(platform(pce_svn=PCE_SVN + 1), level()).status is TcbStatus.UP_TO_DATE


def test_the_highest_level_that_is_reached_counts_in_whatever_order_they_stand() -> None:
    low, lower_pce = level("OutOfDate", sgx=(1,) * 16), level("ConfigurationNeeded", pce_svn=5)
    for levels in ((low, lower_pce, level()), (level(), low, lower_pce), (lower_pce, level(), low)):
        assert sgx_status(platform(), *levels).status is TcbStatus.UP_TO_DATE
        assert sgx_status(platform(pce_svn=5), *levels).status is TcbStatus.CONFIGURATION_NEEDED


def test_of_equal_levels_the_first_counts() -> None:
    assert sgx_status(platform(), level("OutOfDate"), level()).status is TcbStatus.OUT_OF_DATE


@pytest.mark.parametrize("at", range(2, 16))
def test_each_tdx_component_from_the_third_on_counts(at: int) -> None:
    needed = (0, 0, *(3 if place == at else 0 for place in range(2, 16)))
    reached = bytes((7, 1, *(3 if place == at else 0 for place in range(2, 16))))
    lower = bytes((7, 1, *(2 if place == at else 0 for place in range(2, 16))))
    assert td_state(reached, tcbLevels=[level(tdx=needed)]).status is TcbStatus.UP_TO_DATE
    assert td_state(lower, tcbLevels=[level(tdx=needed)]).status is None


def test_the_first_two_tdx_components_count_only_without_a_module_version() -> None:
    levels = [level(tdx=(9, 9, 3, *(0,) * 13))]
    assert td_state(svn(7, 1, 3), tcbLevels=levels).status is TcbStatus.UP_TO_DATE
    assert td_state(svn(9, 0, 3), tcbLevels=levels).status is None
    assert td_state(svn(9, 0, 3), tcbLevels=[level(tdx=(9, 0, 3, *(0,) * 13))]).status is TcbStatus.UP_TO_DATE
    assert td_state(svn(8, 0, 3), tcbLevels=[level(tdx=(9, 0, 3, *(0,) * 13))]).status is None


# --- what it comes to -------------------------------------------------------------------------------------------------

CONVERGED = [
    ("UpToDate", "OutOfDate", "OutOfDate"),
    ("SWHardeningNeeded", "OutOfDate", "OutOfDate"),
    ("ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    ("ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    ("OutOfDate", "OutOfDate", "OutOfDate"),
    ("OutOfDateConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    ("Revoked", "OutOfDate", "Revoked"),
    *((status, "UpToDate", status) for status in STATUS if not status.startswith("TDRelaunch")),
    *((status, "Revoked", "Revoked") for status in STATUS if not status.startswith("TDRelaunch")),
    ("UpToDate", "ConfigurationNeeded", "OutOfDate"),
]


@pytest.mark.parametrize(("alone", "qe", "together"), CONVERGED)
def test_a_platform_is_no_better_than_its_qe(alone: str, qe: str, together: str) -> None:
    state = sgx_status(platform(), level(alone), qe=qe_of("sgx", svn_level(6, qe)))
    assert (state.status, state.launch, state.platform, state.qe) == (
        *[STATUS[together]] * 2,
        STATUS[alone],
        STATUS[qe],
    )
    assert (state.current, state.module) == (None, None)


@pytest.mark.parametrize(("alone", "module_status", "together"), CONVERGED)
def test_a_platform_is_no_better_than_its_tdx_module(alone: str, module_status: str, together: str) -> None:
    modules = [module(1, [svn_level(6, module_status)])]
    state = td_state(tcbLevels=[level(alone)], tdxModuleIdentities=modules)
    assert (state.status, state.platform, state.module) == (STATUS[together], STATUS[alone], STATUS[module_status])


def test_what_is_below_every_level_has_no_state() -> None:
    low_qe = sgx_status(platform(), level(advisories=[ADVISORY]), qe=qe_of("sgx", svn_level(8)))
    assert (low_qe.status, low_qe.platform, low_qe.qe) == (None, TcbStatus.UP_TO_DATE, None)
    assert (low_qe.date, low_qe.advisories) == (None, ())
    low_module = td_state(svn(3, 1, 3))
    assert (low_module.status, low_module.platform, low_module.module) == (None, TcbStatus.UP_TO_DATE, None)
    unknown_module = td_state(svn(9, 2, 3))
    assert (unknown_module.status, unknown_module.module) == (None, None)
    assert td_state(tdxModuleIdentities=[]).status is None


def test_without_a_module_version_only_platform_and_qe_count() -> None:
    state = td_state(svn(5, 0, 3), tdxModuleIdentities=[])
    assert (state.status, state.module) == (TcbStatus.UP_TO_DATE, None)


def test_the_date_is_the_oldest_and_advisories_are_named_once() -> None:
    modules = [module(1, [svn_level(6, advisories=["B", "C"], date="2025-01-01T00:00:00Z")])]
    qe = qe_of("tdx", svn_level(6, advisories=["A", "B"], date="2025-06-01T00:00:00Z"))
    state = td_state(qe=qe, tcbLevels=[level(advisories=["D", "B"])], tdxModuleIdentities=modules)
    assert state.advisories == ("A", "B", "C", "D")
    assert state.date == 1735689600.0


# --- relaunch ---------------------------------------------------------------------------------------------------------

OLD, NEW = svn(4, 1, 3), svn(7, 1, 3)


def test_a_new_module_under_an_old_td_advises_its_relaunch() -> None:
    state = td_state(OLD, NEW)
    assert state.status is TcbStatus.TD_RELAUNCH_ADVISED
    assert (state.launch, state.current) == (TcbStatus.OUT_OF_DATE, TcbStatus.UP_TO_DATE)
    assert td_state(OLD, OLD).status is TcbStatus.OUT_OF_DATE
    assert td_state(OLD).status is TcbStatus.OUT_OF_DATE
    assert td_state(NEW, NEW).status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize("status", ["ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"])
def test_a_configuration_that_is_needed_stays_needed(status: str) -> None:
    state = td_state(OLD, NEW, tcbLevels=[level(status)])
    assert state.status is TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
    # Also where only the launch level needs it: the platform's own microcode is the latest, the TD's was not.
    older = level("OutOfDateConfigurationNeeded", tdx=(0, 0, 1, *(0,) * 13))
    state = td_state(svn(4, 1, 1), NEW, tcbLevels=[level(), older])
    assert state.status is TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED


def test_a_relaunch_helps_only_if_nothing_else_is_old() -> None:
    assert td_state(OLD, NEW, qe=qe_of("tdx", svn_level(6, "OutOfDate"))).status is TcbStatus.OUT_OF_DATE
    assert td_state(OLD, NEW, qe=qe_of("tdx", svn_level(6, "Revoked"))).status is TcbStatus.REVOKED
    assert td_state(OLD, NEW, qe=qe_of("tdx", svn_level(9))).status is None
    assert td_state(OLD, NEW, tcbLevels=[level("OutOfDate")]).status is TcbStatus.OUT_OF_DATE
    assert td_state(OLD, NEW, tcbLevels=[level("Revoked")]).status is TcbStatus.REVOKED
    assert td_state(OLD, NEW, tcbLevels=[level(sgx=(9,) * 16)]).status is None
    assert td_state(OLD, NEW, tcbLevels=[]).status is None


def test_a_relaunch_helps_only_if_what_runs_is_the_latest() -> None:
    assert td_state(OLD, svn(5, 1, 3)).status is TcbStatus.OUT_OF_DATE
    assert td_state(OLD, svn(7, 1, 2)).status is TcbStatus.OUT_OF_DATE
    assert td_state(OLD, svn(9, 2, 3)).status is TcbStatus.OUT_OF_DATE
    empty = [module(1), module(2, [])]
    assert td_state(OLD, svn(9, 2, 3), tdxModuleIdentities=empty).status is TcbStatus.OUT_OF_DATE
    other = [module(1), module(2, [svn_level(1)])]
    assert td_state(OLD, svn(1, 2, 3), tdxModuleIdentities=other).status is TcbStatus.TD_RELAUNCH_ADVISED
    assert td_state(OLD, svn(5, 0, 3)).status is TcbStatus.TD_RELAUNCH_ADVISED
    assert td_state(OLD, svn(4, 0, 3)).status is TcbStatus.OUT_OF_DATE


def test_a_relaunch_helps_only_if_the_module_was_what_was_old() -> None:
    """The TD's own microcode is old, its module is not: another launch is needed for more than the module."""
    older = level("OutOfDate", tdx=(0, 0, 1, *(0,) * 13))
    state = td_state(svn(7, 1, 1), NEW, tcbLevels=[level(), older])
    assert (state.status, state.platform, state.module) == (
        TcbStatus.OUT_OF_DATE,
        TcbStatus.OUT_OF_DATE,
        TcbStatus.UP_TO_DATE,
    )
    hardening = [module(1, [svn_level(6), svn_level(4, "SWHardeningNeeded")])]
    assert td_state(OLD, NEW, tdxModuleIdentities=hardening).status is TcbStatus.OUT_OF_DATE


def test_a_relaunch_helps_only_a_td_that_has_a_level() -> None:
    """Without TDX its platform is up to date and only its module old; with TDX it has no level or a revoked one."""
    assert td_state(svn(4, 1, 1), NEW, tcbLevels=[level()]).status is None
    revoked = level("Revoked", tdx=(0, 0, 1, *(0,) * 13))
    assert td_state(svn(4, 1, 1), NEW, tcbLevels=[level(), revoked]).status is TcbStatus.REVOKED


def test_no_component_is_left_without_its_level() -> None:
    for short in (svn(7, 1, 3)[:15], svn(7, 1, 3) + b"\0"):
        with pytest.raises(ValueError, match="zip"):
            td_state(short)
    with pytest.raises(ValueError, match="zip"):
        sgx_status(platform(COMPONENTS[:15]), level())


def test_a_module_is_named_by_its_version() -> None:
    info = info_of("tdx")
    assert [identity and identity.name for identity in (module_identity(info, svn(1, n)) for n in (0, 1, 2, 3))] == [
        "",
        "TDX_01",
        None,
        "TDX_03",
    ]
    ten = info_of("tdx", tdxModuleIdentities=[{**module(10), "id": "tdx_0a"}])
    assert module_identity(ten, svn(1, 10)) is not None
