"""Run as a process by test_sandbox: closes itself as a worker does, then tries to get out, and says what became of it.

    python sandbox_probe.py closed|open|compiles PARENT_PID ADDRESS [PROVIDER]    → one JSON object on stdout

ADDRESS is of eight readable bytes in the parent; `compiles` closes as for a provider that compiles kernels.

`open` is the control: each attempt in a child of its own, without the sandbox. An attempt answers the name of the
error with which the kernel refused it, or `done`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

# isort: off
from blindai.server import worker  # first, as in the real process: it decides which threads libraries start
from blindai.oip.tensors import Datatype, Tensor
from blindai.server.engine import Engine
from blindai.server.sandbox import close_process
from blindai.server.warm_up import LIBRARIES, open_providers, warm_up

import numpy as np
from onnx import TensorProto, helper
# isort: on

if TYPE_CHECKING:
    from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
COLUMN = 0 if platform.machine() == "x86_64" else 1
SIZE = 4096
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
PARENT, ADDRESS = int(sys.argv[2]), int(sys.argv[3])
PROVIDERS = tuple(sys.argv[4:]) or ("cpu",)
BUFFER = ctypes.create_string_buffer(SIZE)
ARGV = (ctypes.c_char_p * 2)(b"true", None)
TRUE = b"/bin/true"

# What the process may hold when it closes: a socket, a memory file with a program in it, a page of its own.
CHANNEL, _OTHER_END = socket.socketpair()
PROGRAM = os.memfd_create("program", 0)
os.write(PROGRAM, Path(os.fsdecode(TRUE)).read_bytes())
PAGE = mmap.mmap(-1, SIZE)


def call(name: str, *args: Any) -> str:
    """A function of libc."""
    return outcome(getattr(LIBC, name)(*args))


def raw(numbers: tuple[int, int], *args: Any) -> str:
    """A system call by its number on x86_64 and aarch64."""
    return outcome(LIBC.syscall(numbers[COLUMN], *(ctypes.c_long(a) if isinstance(a, int) else a for a in args)))


def outcome(result: int) -> str:
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def removed(control: str, identifier: int) -> str:
    """A System V object outlives its process."""
    answer = outcome(identifier)
    if answer == "done":
        getattr(LIBC, control)(identifier, 0, 0)
    return answer


def born(result: int) -> str:
    """A child that came to be ends at once."""
    if result == 0:
        os._exit(0)
    return outcome(result)


def of_python(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def io_vector(address: int) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * 2)(address, 8)


def read_parent() -> str:
    return call("process_vm_readv", PARENT, io_vector(ctypes.addressof(BUFFER)), 1, io_vector(ADDRESS), 1, 0)


def write_parent() -> str:
    """What was read is written back."""
    return call("process_vm_writev", PARENT, io_vector(ADDRESS), 0, io_vector(ADDRESS), 0, 0)


def map_program() -> None:
    mmap.mmap(PROGRAM, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)


def owner_of(descriptor: int) -> None:
    """SIGIO to another process whenever something arrives."""
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_SETOWN, PARENT)


NO_PRIVILEGE_NEEDED: dict[str, Callable[[], str]] = {
    "open absolute": lambda: of_python(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "open relative": lambda: of_python(lambda: os.open(".", os.O_RDONLY)),
    "open /proc/self/mem": lambda: of_python(lambda: os.open("/proc/self/mem", os.O_RDWR)),
    "open for writing": lambda: of_python(lambda: os.open("/dev/null", os.O_WRONLY | os.O_CREAT)),
    "openat2": lambda: raw((437, 437), AT_FDCWD, ctypes.c_char_p(b"/etc/passwd"), (ctypes.c_uint64 * 3)(), 24),
    "stat": lambda: of_python(lambda: Path("/etc/passwd").stat()),
    "statx": lambda: raw((332, 291), AT_FDCWD, ctypes.c_char_p(b"/etc/passwd"), 0, 0x7FF, BUFFER),
    "access": lambda: call("access", b"/etc/passwd", 0),
    "readlink": lambda: of_python(lambda: Path("/proc/self/exe").readlink()),
    "chdir": lambda: of_python(lambda: os.chdir("/")),
    "truncate its memory file": lambda: of_python(lambda: os.ftruncate(PROGRAM, 10**6)),
    "memfd_create": lambda: of_python(lambda: os.memfd_create("x")),
    "inotify_init": lambda: call("inotify_init1", 0),
    "socket TCP": lambda: of_python(lambda: socket.socket(socket.AF_INET)),
    "socket TCP v6": lambda: of_python(lambda: socket.socket(socket.AF_INET6)),
    "socket UDP": lambda: of_python(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "socket unix": lambda: of_python(lambda: socket.socket(socket.AF_UNIX)),
    "socket netlink": lambda: of_python(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "socketpair": lambda: of_python(socket.socketpair),
    "connect": lambda: of_python(lambda: CHANNEL.connect("\0nobody")),
    "listen": lambda: of_python(lambda: CHANNEL.listen(1)),
    "setsockopt": lambda: of_python(lambda: CHANNEL.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)),
    "send out of band": lambda: of_python(lambda: CHANNEL.send(b"x", socket.MSG_OOB)),
    "execve": lambda: call("execve", TRUE, ARGV, None),
    "execveat of a memory file": lambda: raw((322, 281), PROGRAM, ctypes.c_char_p(b""), ARGV, None, AT_EMPTY_PATH),
    "map a memory file as code": lambda: of_python(map_program),
    "map new memory as code": lambda: of_python(lambda: mmap.mmap(-1, SIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC)),
    "make memory code": lambda: call(
        "mprotect", ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(PAGE))), SIZE, mmap.PROT_EXEC
    ),
    "pkey_mprotect": lambda: raw(
        (329, 288), ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(PAGE))), SIZE, mmap.PROT_EXEC, -1
    ),
    "fork": lambda: of_python(lambda: os.fork() or os._exit(0)),
    "clone": lambda: born(LIBC.syscall((56, 220)[COLUMN], ctypes.c_long(signal.SIGCHLD), None, None, None, None)),
    "clone3": lambda: born(LIBC.syscall(435, (ctypes.c_uint64 * 8)(), ctypes.c_size_t(64))),
    "ptrace": lambda: call("ptrace", 0, 0, None, None),
    "kill the parent": lambda: of_python(lambda: os.kill(PARENT, 0)),
    "kill itself": lambda: of_python(lambda: os.kill(os.getpid(), 0)),
    "tgkill the parent": lambda: raw((234, 131), PARENT, PARENT, 0),
    "tkill": lambda: raw((200, 130), PARENT, 0),
    "pidfd_open": lambda: raw((434, 434), PARENT, 0),
    "pidfd_send_signal": lambda: raw((424, 424), PROGRAM, 0, None, 0),
    "rt_sigqueueinfo": lambda: raw((129, 138), PARENT, 0, (ctypes.c_int32 * 32)(0, 0, -1)),
    "signal by F_SETOWN": lambda: of_python(lambda: owner_of(CHANNEL.fileno())),
    "raise its own limits": lambda: call("setrlimit", 7, (ctypes.c_uint64 * 2)(64, 64)),
    "affinity of the parent": lambda: of_python(lambda: os.sched_setaffinity(PARENT, os.sched_getaffinity(PARENT))),
    "setpriority": lambda: call("setpriority", 0, PARENT, 0),
    "undo: dumpable": lambda: call("prctl", 4, 1, 0, 0, 0),
    "undo: no_new_privs": lambda: call("prctl", 38, 1, 0, 0, 0),
    "prctl of the seccomp mode": lambda: call("prctl", 21, 0, 0, 0, 0),
    "prctl of dying with the parent": lambda: call("prctl", 1, 0, 0, 0, 0),
    "seccomp": lambda: raw((317, 277), 2, 0, (ctypes.c_uint32 * 1)(0x80000000)),
    "landlock": lambda: raw((444, 444), None, 0, 1),
    "io_uring_setup": lambda: raw((425, 425), 1, BUFFER),
    "setuid": lambda: raw((105, 146), os.getuid()),
    "shmget": lambda: removed("shmctl", LIBC.shmget(0, SIZE, 0o600)),
    "msgget": lambda: removed("msgctl", LIBC.msgget(0, 0o600)),
    "semget": lambda: removed("semctl", LIBC.semget(0, 1, 0o600)),
    "eventfd": lambda: call("eventfd", 0, 0),
    "timerfd_create": lambda: call("timerfd_create", 1, 0),
    "splice": lambda: call("splice", PROGRAM, None, PROGRAM, None, 1, 0),
    "personality": lambda: call("personality", ctypes.c_ulong(0xFFFFFFFF)),
    "capset": lambda: of_python(lambda: raise_errno(LIBC.capset(capability_header(), BUFFER))),
}
# Without the sandbox these need root, or a system that lets a user's processes look at each other.
PRIVILEGED: dict[str, Callable[[], str]] = {
    "ptrace the parent": lambda: call("ptrace", 0x4206, PARENT, None, None),  # PTRACE_SEIZE
    "process_vm_readv": read_parent,
    "process_vm_writev": write_parent,
    "prlimit of the parent": lambda: call("prlimit", PARENT, 7, None, BUFFER),
    "kcmp": lambda: raw((312, 272), PARENT, PARENT, 2, 0, 0),
    "mount": lambda: call("mount", b"none", b"/nowhere", b"tmpfs", 0, None),
    "unshare": lambda: call("unshare", 0x00020000),
    "unshare the users": lambda: call("unshare", 0x10000000),
    "setns": lambda: call("setns", PROGRAM, 0),
    "chroot": lambda: call("chroot", b"/"),
    "pivot_root": lambda: raw((155, 41), ctypes.c_char_p(b"/nowhere"), ctypes.c_char_p(b"/nowhere")),
    "setgroups": lambda: call("setgroups", 0, None),
    "bpf": lambda: raw((321, 280), 0, BUFFER, 0),
    "userfaultfd": lambda: raw((323, 282), 0),
    "perf_event_open": lambda: raw((298, 241), BUFFER, 0, -1, -1, 0),
    "add_key": lambda: raw((248, 217), None, None, None, 0, -3),
    "init_module": lambda: raw((175, 105), BUFFER, 0, ctypes.c_char_p(b"")),
    "syslog": lambda: call("klogctl", 10, None, 0),
    "reboot": lambda: raw((169, 142), 0, 0, 0, None),
    "sethostname": lambda: call("sethostname", b"", -1),
    "clock_settime": lambda: raw((227, 112), 0, None),
    "open_by_handle_at": lambda: raw((304, 265), AT_FDCWD, BUFFER, 0),
}
# Calls that one architecture alone has.
X86_64_ONLY: dict[str, Callable[[], str]] = {
    "vfork": lambda: outcome(LIBC.syscall(58)),
    "modify_ldt": lambda: outcome(LIBC.syscall(154, 0, BUFFER, 0)),
    "creat": lambda: outcome(LIBC.syscall(85, b"/dev/null", 0o600)),
    "arch_prctl": lambda: outcome(LIBC.syscall(158, 0x1003, BUFFER)),
}


def capability_header() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(bytes.fromhex("2205082000000000"), 8)


def raise_errno(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


# What `compiles` gives, and where it ends.
LIBRARY = LIBRARIES / "__init__.py"
OF_LIBRARIES: dict[str, Callable[[], str]] = {
    "read a library": lambda: of_python(lambda: os.open(LIBRARY, os.O_RDONLY)),
    "list the libraries": lambda: of_python(lambda: list(LIBRARIES.iterdir())),
    "write a library": lambda: of_python(lambda: os.open(LIBRARY, os.O_WRONLY)),
    "truncate a library": lambda: of_python(lambda: os.open(LIBRARY, os.O_RDONLY | os.O_TRUNC)),
    "make a file": lambda: of_python(lambda: os.open(LIBRARIES / "new", os.O_RDONLY | os.O_CREAT)),
    "read beside them": lambda: of_python(lambda: os.open(LIBRARIES.parent / "__init__.py", os.O_RDONLY)),
    "list above them": lambda: of_python(lambda: list(LIBRARIES.parent.iterdir())),
    "a path's descriptor": lambda: of_python(lambda: os.open("/etc/passwd", os.O_PATH)),
    "read /proc": lambda: of_python(lambda: os.open(f"/proc/{PARENT}/status", os.O_RDONLY)),
    "run a library": lambda: call("execve", os.fsencode(LIBRARY), ARGV, None),
}


def attempts() -> dict[str, Callable[[], str]]:
    return {**NO_PRIVILEGE_NEEDED, **PRIVILEGED, **(X86_64_ONLY if COLUMN == 0 else {})}


def in_a_child(attempt: Callable[[], str]) -> str:
    """For the control: what an attempt changes is its child's affair."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, attempt().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode() or "done"  # an exec that worked says nothing
    os.waitpid(child, 0)
    return said


def in_a_new_thread(attempt: Callable[[], str]) -> str:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(attempt()))
    thread.start()
    thread.join()
    return said[0]


def multiply(threads: int) -> float:
    """A new session, and a product large enough that every thread gets a part."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = Engine(threads=threads, providers=PROVIDERS)
    engine.load({"m.onnx": model.SerializeToString()})
    data = np.ones((600, 600), np.float32)
    (output,) = engine.run((Tensor(name="x", datatype=Datatype.FP32, shape=data.shape, data=data),), ())
    return float(output.data.sum())


def allocate(size: int) -> str:
    try:
        return str(len(bytearray(size)))
    except MemoryError:
        return "MemoryError"


def main() -> None:
    warm_up()
    open_providers(PROVIDERS)
    told: dict[str, object] = {"unprivileged": list(NO_PRIVILEGE_NEEDED), "imported": worker.__name__}
    if sys.argv[1] == "open":
        told["attempts"] = {name: in_a_child(attempt) for name, attempt in attempts().items() if name != "vfork"}
    else:
        compiles = sys.argv[1] == "compiles"
        closed = close_process(max_address_space_bytes=4 * 1024**3, libraries=LIBRARIES if compiles else None)
        told["libraries"] = {name: attempt() for name, attempt in OF_LIBRARIES.items()}
        told["landlock"] = closed.landlock_version
        told["attempts"] = {name: attempt() for name, attempt in attempts().items()}
        told["in a thread"] = {name: in_a_new_thread(attempt) for name, attempt in attempts().items()}
        told["environment"] = len(os.environ)
        told["allocations"] = [allocate(64 * 1024**2), allocate(64 * 1024**3)]
    warm_up()
    told["sums"] = [multiply(threads) for threads in (1, 2, 4)]
    print(json.dumps(told))


main()
