"""Closes a model's process: afterwards it can compute, and talk on the descriptors that it has; nothing else.

    limits · no environment · no dumps · no capabilities · no new privileges · Landlock · seccomp (`seccomp_filter`)

A provider that compiles kernels (`execution_providers`) gets two things back: memory may become code, and one folder of
libraries may be read. Everything else stays forbidden to it, too.
Called once, by the only thread, after everything trusted is imported and before the model is parsed. Nothing undoes it.
Landlock and seccomp overlap on purpose: each alone keeps the process from files and from the network.
Fails closed: without one of them it raises, unless the caller says that this may be so.
Leaves out: CPU time and the deadline of a run, which the server holds; memory that others count (control groups).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blindai.errors import InvalidSettingsError
from blindai.server.log import LOG
from blindai.server.process_guard import forbid_dumps
from blindai.server.seccomp_filter import MACHINES, build_filter

EXIT_STATUS = 78  # EX_CONFIG: of a process that could not close itself
MAX_DESCRIPTORS = 512  # a model has up to 128 files, each twice while it is mapped; others can only be received
SANDBOX_MISSING = "the kernel lacks what keeps a model's process closed: "

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_SECUREBITS = 28
_PR_SET_NO_NEW_PRIVS = 38
_SECUREBITS_LOCKED = 0x2F | 0xC0  # NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each with its lock
_CAPABILITY_VERSION = 0x20080522
# Numbers that x86_64 and aarch64 share, and each one's own for seccomp.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_READ_FILE_AND_DIR = 0b1100
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SECCOMP_SET_MODE_FILTER, _SECCOMP_GET_ACTION_AVAIL = 1, 2
_SECCOMP_FILTER_FLAG_TSYNC = 1
_SECCOMP_RET_KILL_PROCESS = 0x80000000
_LANDLOCK_VERSION_FLAG = 1
# Rights over files by the first Landlock version that knows them, then over the network, then what is scoped.
_FILE_RIGHTS = ((1, 0x1FFF), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_NETWORK_RIGHTS = ((4, 0b11),)  # bind and connect of TCP
_SCOPES = ((6, 0b11),)  # abstract unix sockets, signals

_LIBC = ctypes.CDLL(None, use_errno=True)


class SandboxMissingError(InvalidSettingsError):
    """A model's process cannot be closed; the message names what is missing."""

    code = "sandbox_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedProcess:
    """What holds this process now.

    Attributes:
        landlock_version: of the kernel's interface; 0 if there is none.
        seccomp: whether system calls are filtered.
    """

    landlock_version: int
    seccomp: bool


def missing_mechanisms() -> tuple[str, ...]:
    """What this machine lacks of the sandbox, in words; changes nothing, so a server can ask before it starts."""
    missing = []
    if _landlock_version() == 0:
        missing.append("Landlock (Linux 5.13, `landlock` among the `lsm=` of its command line)")
    if not _seccomp_available():
        missing.append("seccomp filters (Linux 4.14 on x86_64 or aarch64)")
    return tuple(missing)


def require_mechanisms() -> None:
    """Refuse to go on where a model's process could not be closed.

    Raises:
        SandboxMissingError: with what this machine lacks.
    """
    missing = missing_mechanisms()
    if missing:
        raise SandboxMissingError(SANDBOX_MISSING + ", ".join(missing), hint="Run it on a kernel that has them.")


def close_process(
    *, max_address_space_bytes: int, libraries: Path | None = None, missing_allowed: bool = False
) -> ClosedProcess:
    """Give up everything that a model must not have, for good.

    Args:
        max_address_space_bytes: of this process, with code, stacks and everything mapped; beyond it allocations fail.
        libraries: folder of a provider that compiles: it may be read, and memory may become code.
        missing_allowed: go on without Landlock or seccomp where the kernel lacks them; it is logged as an error.

    Raises:
        SandboxMissingError: the kernel lacks something, or refused it; or threads are running that would stay open.
    """
    require_single_thread()
    missing = missing_mechanisms()
    if libraries is not None or not missing_allowed:  # without Landlock the folder would be every folder
        require_mechanisms()
    _volunteer_for_the_memory_killer()
    _limit_resources(max_address_space_bytes)
    os.environ.clear()
    forbid_dumps()
    _drop_capabilities()
    _call("no_new_privs", _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    closed = ClosedProcess(landlock_version=_landlock_version(), seccomp=_seccomp_available())
    if closed.landlock_version:
        _restrict_by_landlock(closed.landlock_version, libraries)
    if closed.seccomp:
        _filter_system_calls(compiles=libraries is not None)
    if missing:
        LOG.error("%s%s; models run less confined", SANDBOX_MISSING, ", ".join(missing))
    else:
        _confirm()
    return closed


def require_single_thread() -> None:
    """Landlock and capabilities belong to a thread, and whoever rules one thread rules the process.

    Raises:
        SandboxMissingError: there are others.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise SandboxMissingError(
            "threads were started before a model's process was closed, and would stay open",
            hint="Set OPENBLAS_NUM_THREADS=1 and ORT_DISABLE_TELEMETRY=1 before the first import.",
        )


def _volunteer_for_the_memory_killer() -> None:
    """When the machine runs out of memory, a model goes before the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _limit_resources(max_address_space_bytes: int) -> None:
    """The number of processes is not limited: root ignores that limit, others share it; the filter refuses instead."""
    for limit, value in (
        (resource.RLIMIT_AS, max_address_space_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
    ):
        _, hard = resource.getrlimit(limit)
        lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowest, lowest))


def _drop_capabilities() -> None:
    """All of them, from every set; a process that has none loses nothing."""
    if os.geteuid() == 0:
        capability = 0
        while _LIBC.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
            _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused without CAP_SETPCAP: no new ones come anyway
            capability += 1
        _LIBC.prctl(_PR_SET_SECUREBITS, _SECUREBITS_LOCKED, 0, 0, 0)  # likewise
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0))
    _call("dropping capabilities", _LIBC.capset(header, ctypes.create_string_buffer(24)))


def _landlock_version() -> int:
    return max(0, int(_LIBC.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)))


def _restrict_by_landlock(version: int, libraries: Path | None) -> None:
    """A set of rules without a rule, or with one to read that folder: all else that it handles is forbidden."""
    handled = [_rights(table, version) for table in (_FILE_RIGHTS, _NETWORK_RIGHTS, _SCOPES)]
    size = 8 if version < 4 else 16 if version < 6 else 24  # noqa: PLR2004  # what that version's kernel knows
    attributes = ctypes.create_string_buffer(struct.pack("=QQQ", *handled)[:size], size)
    rules = _LIBC.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    _call("Landlock", rules)
    try:
        if libraries is not None:
            _allow_reading(rules, libraries)
        _call("Landlock", _LIBC.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _allow_reading(rules: int, folder: Path) -> None:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _READ_FILE_AND_DIR, descriptor), 12)
        _call("Landlock", _LIBC.syscall(_LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(descriptor)


def _rights(table: tuple[tuple[int, int], ...], version: int) -> int:
    return sum(rights for since, rights in table if version >= since)


def _seccomp_available() -> bool:
    number = _SECCOMP.get(platform.machine())
    if number is None:
        return False
    action = ctypes.c_uint32(_SECCOMP_RET_KILL_PROCESS)
    return bool(_LIBC.syscall(number, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0)


def _filter_system_calls(*, compiles: bool) -> None:
    machine = platform.machine()
    program = build_filter(MACHINES[machine], os.getpid(), compiles=compiles)
    code = ctypes.create_string_buffer(b"".join(instruction.encode() for instruction in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _call(
        "seccomp",
        _LIBC.syscall(_SECCOMP[machine], _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, header),
    )


def _call(what: str, result: int) -> None:
    """TSYNC answers the number of a thread that did not follow, hence not only below zero."""
    if result < 0 or (what == "seccomp" and result != 0):
        reason = errno.errorcode.get(ctypes.get_errno(), "unknown")
        raise SandboxMissingError(f"the kernel refused to close a model's process: {what} ({reason})")


def _confirm() -> None:
    """Try it: a kernel that says yes and does nothing must not be believed."""
    with suppress(PermissionError):
        os.close(os.open("/", os.O_RDONLY))
        raise SandboxMissingError("a model's process was closed, and can still open files")
    with suppress(PermissionError):
        socket.socket(socket.AF_UNIX).close()
        raise SandboxMissingError("a model's process was closed, and can still make sockets")
