"""Which system calls a model's process may make once it is closed, as a program for the kernel (seccomp, classic BPF).

A list of what is allowed; everything else fails with EPERM, so that a library finds an error and not a dead process.
It holds what ONNX Runtime needs to make sessions, start threads and run, and what talking on descriptors that are
already open needs. Nothing in it opens a file, makes a descriptor or a process, or touches another process.
A provider that compiles gets more (`_COMPILER`): code in memory, and reading, where Landlock says which folder.
A call of another architecture (32-bit, x32) ends the process: the numbers would mean something else.
Leaves out: installing it (`sandbox`).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# linux/bpf_common.h
_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_AT_LEAST = 0x35
_JUMP_IF_BITS = 0x45
_RETURN = 0x06
# linux/seccomp.h
ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
REFUSE = _ERRNO | errno.EPERM
_NOT_THERE = _ERRNO | errno.ENOSYS
_NO_LINK = _ERRNO | errno.EINVAL
# struct seccomp_data: nr, arch, instruction_pointer, args[6]; both architectures are little-endian
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000

_PROT_EXEC = 0x4
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE, and O_PATH, which Landlock does not see; alike on both architectures.
_OPENS_FOR_MORE_THAN_READING = 0o3 | 0o100 | 0o1000 | 0o20000000 | 0o10000000
_AT_EMPTY_PATH = 0x1000
_MSG_OOB = 0x1  # out-of-band data on unix sockets: a corner of the kernel with a history (CVE-2025-38236)
_CLONE_THREAD = 0x00010000
_CLONE_NEW_ANYTHING = 0x7E020080  # namespaces: NS, CGROUP, UTS, IPC, USER, PID, NET, TIME
_PR_SET_NAME = 15
# F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC (Python's mmap), F_GET_SEALS; never F_SETOWN, which sends signals.
_FCNTL_COMMANDS = (1, 2, 3, 4, 1030, 1034)
_IOCTL_COMMANDS = (0x5421, 0x541B)  # FIONBIO, FIONREAD


class Architecture(IntEnum):
    """AUDIT_ARCH_ of linux/audit.h."""

    X86_64 = 0xC000003E
    AARCH64 = 0xC00000B7


MACHINES = {"x86_64": Architecture.X86_64, "aarch64": Architecture.AARCH64}

# Numbers on x86_64 and aarch64; None where the architecture has no such call.
_ALWAYS: dict[str, tuple[int | None, int | None]] = {
    # on descriptors that are open already
    "read": (0, 63),
    "readv": (19, 65),
    "write": (1, 64),
    "writev": (20, 66),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "fstat": (5, 80),  # never newfstatat, which looks at paths
    "close": (3, 57),
    "shutdown": (48, 210),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "getsockopt": (55, 209),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_ctl": (233, 21),
    # memory
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    # threads
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168),
    # clocks, and facts about this process
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrandom": (318, 278),
    # its own signals, and its end
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_CONDITIONAL: dict[str, tuple[int | None, int | None]] = {
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "clone": (56, 220),
    "clone3": (435, 435),
    "prctl": (157, 167),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
}
# What a provider that compiles needs besides: its libraries look for each other, by path, whenever a model is loaded.
_COMPILER: dict[str, tuple[int | None, int | None]] = {
    "openat": (257, 56),
    "getdents64": (217, 61),
    "newfstatat": (262, 79),
    "readlink": (89, None),
    "readlinkat": (267, 78),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One `struct sock_filter`.

    Attributes:
        code: what to do.
        jump_true: instructions to skip if a comparison holds.
        jump_false: and if not.
        operand: what to compare with, load or return.
    """

    code: int
    jump_true: int = 0
    jump_false: int = 0
    operand: int = 0

    def encode(self) -> bytes:
        """As the kernel reads it."""
        return struct.pack("=HBBI", self.code, self.jump_true, self.jump_false, self.operand)


def build_filter(architecture: Architecture, process_id: int, *, compiles: bool = False) -> tuple[Instruction, ...]:
    """The program for a process.

    Args:
        architecture: of the machine.
        process_id: its own; the only process that it may send a signal to (`abort` does).
        compiles: whether memory may become code, and files be read where Landlock lets them.
    """
    column = 0 if architecture is Architecture.X86_64 else 1
    program = [_load(_ARCHITECTURE), _equal(architecture, skip_if=1), _return(KILL_PROCESS)]
    program.append(_load(_NUMBER))
    if architecture is Architecture.X86_64:
        program += [Instruction(code=_JUMP_IF_AT_LEAST, jump_false=1, operand=_X32_BIT), _return(KILL_PROCESS)]
    for numbers in _ALWAYS.values():
        number = numbers[column]
        if number is not None:
            program += [_equal(number, skip_if_not=1), _return(ALLOW)]
    blocks = _conditions(process_id) | (_compiler_conditions() if compiles else {})
    for name, block in blocks.items():
        number = (_CONDITIONAL | _COMPILER)[name][column]
        if number is not None:
            program += [_equal(number, skip_if_not=len(block)), *block]
    return (*program, _return(REFUSE))


def _conditions(process_id: int) -> dict[str, list[Instruction]]:
    """Each block ends in a verdict whatever it finds."""
    return {
        "mmap": _without_bits(2, _PROT_EXEC),  # no code but what was loaded before: not even from a memory file
        "mprotect": _without_bits(2, _PROT_EXEC),
        "sendto": _without_bits(3, _MSG_OOB),
        "sendmsg": _without_bits(2, _MSG_OOB),
        "recvfrom": _without_bits(3, _MSG_OOB),
        "recvmsg": _without_bits(2, _MSG_OOB),
        "clone": _threads_only(),
        "clone3": [_return(_NOT_THERE)],  # its flags lie in memory, where no filter sees them; glibc then takes clone
        "prctl": _one_of(0, (_PR_SET_NAME,)),
        "fcntl": _one_of(1, _FCNTL_COMMANDS),
        "ioctl": _one_of(1, _IOCTL_COMMANDS),
        "tgkill": _one_of(0, (process_id,)),
        "prlimit64": _reads_own_limits(),
    }


def _compiler_conditions() -> dict[str, list[Instruction]]:
    """A path is never a link: so that `realpath` goes on, and learns nothing."""
    return {
        "mprotect": [_return(ALLOW)],
        "openat": _without_bits(2, _OPENS_FOR_MORE_THAN_READING),
        "getdents64": [_return(ALLOW)],
        "newfstatat": _one_of(3, (_AT_EMPTY_PATH,)),  # glibc's fstat; the path is in memory, where no filter sees it
        "readlink": [_return(_NO_LINK)],
        "readlinkat": [_return(_NO_LINK)],
    }


def _without_bits(argument: int, bits: int) -> list[Instruction]:
    return [
        _load(_low(argument)),
        Instruction(code=_JUMP_IF_BITS, jump_false=1, operand=bits),
        _return(REFUSE),
        _return(ALLOW),
    ]


def _one_of(argument: int, values: Iterable[int]) -> list[Instruction]:
    """The kernel takes each of these arguments as 32 bits."""
    block = [_load(_low(argument))]
    for value in values:
        block += [_equal(value, skip_if_not=1), _return(ALLOW)]
    return [*block, _return(REFUSE)]


def _threads_only() -> list[Instruction]:
    return [
        _load(_low(0)),
        Instruction(code=_JUMP_IF_BITS, jump_false=1, operand=_CLONE_NEW_ANYTHING),
        _return(REFUSE),
        Instruction(code=_JUMP_IF_BITS, jump_false=1, operand=_CLONE_THREAD),
        _return(ALLOW),
        _return(REFUSE),
    ]


def _reads_own_limits() -> list[Instruction]:
    """`prlimit64(0, …, NULL, …)`; the pointer has two halves."""
    block: list[Instruction] = []
    for offset in (_low(0), _low(2), _low(2) + 4):
        block += [_load(offset), _equal(0, skip_if=1), _return(REFUSE)]
    return [*block, _return(ALLOW)]


def _low(argument: int) -> int:
    return _ARGUMENTS + 8 * argument


def _load(offset: int) -> Instruction:
    return Instruction(code=_LOAD_WORD, operand=offset)


def _equal(value: int, *, skip_if: int = 0, skip_if_not: int = 0) -> Instruction:
    return Instruction(code=_JUMP_IF_EQUAL, jump_true=skip_if, jump_false=skip_if_not, operand=value)


def _return(verdict: int) -> Instruction:
    return Instruction(code=_RETURN, operand=verdict)
