"""A model's process, once closed, computes and answers; whatever else it tries is refused."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from blindai.bundle import UploadHeader
from blindai.oip.tensors import Datatype, Tensor
from blindai.server import seccomp_filter
from blindai.server.arena import Arena, create_arena
from blindai.server.model_store import ModelStore
from blindai.server.sandbox import EXIT_STATUS, MAX_DESCRIPTORS, missing_mechanisms
from blindai.server.seccomp_filter import ALLOW, KILL_PROCESS, REFUSE, Architecture, Instruction, build_filter
from blindai.server.worker_pool import WorkerPool
from blindai.server.worker_protocol import DOORBELL, LOAD, FileEntry, Load, encode_header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROBE = Path(__file__).with_name("sandbox_probe.py")
SOON_S = 60
ENOSYS = 0x00050000 | 38
EINVAL = 0x00050000 | 22
X86_64_ONLY = pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
SECCOMP = {"x86_64": 317, "aarch64": 277}[platform.machine()]
LANDLOCK_CREATE_RULESET = 444

# What the scripts below begin with: the imports of a worker, in its order.
BEGIN = """
import ctypes, mmap, os, struct, sys, threading
from blindai.server import worker
from blindai.server.sandbox import close_process
GIB = 1024 ** 3
"""
# A kernel without a system call: the real code meets the real error, and a filter makes it.
WITHOUT_CALL = """
program = b"".join(struct.pack("=HBBI", *instruction) for instruction in (
    (0x20, 0, 0, 0), (0x15, 0, 1, NUMBER), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)))
code = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("@HP", 4, ctypes.addressof(code)), 0, 0) == 0
"""


def probed(mode: str, *providers: str) -> dict[str, Any]:
    shared = ctypes.create_string_buffer(8)
    command = [sys.executable, str(PROBE), mode, str(os.getpid()), str(ctypes.addressof(shared)), *providers]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=SOON_S)
    assert ended.returncode == 0, ended.stderr.decode()
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@pytest.fixture(scope="module")
def closed() -> dict[str, Any]:
    return probed("closed")


@pytest.fixture(scope="module")
def control() -> dict[str, Any]:
    return probed("open")


def script(code: str, number: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program that begins as a worker does."""
    whole = BEGIN + code.replace("NUMBER", str(number))
    return subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=False, timeout=SOON_S)


@pytest.mark.network
def test_a_closed_process_is_refused_everything_but_computing(
    closed: dict[str, Any], tell: Callable[[str], None]
) -> None:
    attempts = closed["attempts"]
    allowed = {name: answer for name, answer in attempts.items() if answer != "EPERM"}
    assert allowed == {"clone3": "ENOSYS"}  # so that glibc takes clone, which is looked into
    tell(f"{len(attempts)} attempts of a closed process, {len(attempts)} refused, {len(closed['sums'])} sessions run")


@pytest.mark.network
@pytest.mark.parametrize(
    "name",
    [
        "open absolute", "open relative", "open /proc/self/mem", "openat2", "stat", "socket TCP", "socket unix",
        "connect",
        "execve", "execveat of a memory file", "fork", "clone", "ptrace", "ptrace the parent", "kill the parent",
        "tgkill the parent", "pidfd_send_signal", "signal by F_SETOWN", "process_vm_readv", "memfd_create", "mount",
        "unshare", "setuid", "undo: dumpable", "undo: no_new_privs", "map a memory file as code", "io_uring_setup",
    ],
)  # fmt: skip
def test_a_closed_process_cannot(name: str, closed: dict[str, Any]) -> None:
    assert closed["attempts"][name] == "EPERM"
    assert closed["in a thread"][name] == "EPERM"


@pytest.mark.network
def test_threads_started_later_are_closed_too(closed: dict[str, Any]) -> None:
    assert closed["in a thread"] == closed["attempts"]


@pytest.mark.network
def test_it_is_the_sandbox_that_refuses(control: dict[str, Any]) -> None:
    """The same attempts without it meet no EPERM, so the answers above are its doing."""
    attempts = control["attempts"]
    judged = attempts if os.geteuid() == 0 else {name: attempts[name] for name in control["unprivileged"]}
    assert [name for name, answer in judged.items() if answer == "EPERM"] == []
    assert sum(answer == "done" for answer in judged.values()) >= 55


# What differs where a provider compiles kernels: code, and Landlock's refusals of what the filter lets through.
OF_A_COMPILER = {
    "clone3": "ENOSYS",
    "make memory code": "done",
    "open absolute": "EACCES",
    "open relative": "EACCES",
    "readlink": "EINVAL",
}
OF_LIBRARIES = {
    "read a library": "done",
    "list the libraries": "done",
    "write a library": "EPERM",
    "truncate a library": "EPERM",
    "make a file": "EPERM",
    "read beside them": "EACCES",
    "list above them": "EACCES",
    "a path's descriptor": "EPERM",
    "read /proc": "EACCES",
    "run a library": "EPERM",
}


@pytest.mark.network
def test_a_provider_that_compiles_gets_code_and_one_folder_and_nothing_else(closed: dict[str, Any]) -> None:
    compiles = probed("compiles")
    assert {name: answer for name, answer in compiles["attempts"].items() if answer != "EPERM"} == OF_A_COMPILER
    assert compiles["in a thread"] == compiles["attempts"]
    assert compiles["libraries"] == OF_LIBRARIES
    assert set(closed["libraries"].values()) == {"EPERM"}
    assert compiles["sums"] == closed["sums"]


@pytest.mark.network
def test_a_provider_that_compiles_needs_landlock_whatever_is_allowed() -> None:
    code = "folder = worker.libraries_of(['openvino'])\nclose_process("
    code += "max_address_space_bytes=4 * GIB, libraries=folder, missing_allowed=True)"
    ended = script(WITHOUT_CALL + code, LANDLOCK_CREATE_RULESET)
    assert ended.returncode == 1
    assert "SandboxMissingError: the kernel lacks" in ended.stderr


@pytest.mark.network
def test_a_closed_process_makes_sessions_and_runs_them_with_several_threads(
    closed: dict[str, Any], control: dict[str, Any]
) -> None:
    assert closed["sums"] == control["sums"] == [600.0**3] * 3


@pytest.mark.network
def test_memory_beyond_the_limit_is_refused_and_nothing_is_left_of_the_environment(closed: dict[str, Any]) -> None:
    assert closed["allocations"] == [str(64 * 1024**2), "MemoryError"]
    assert closed["environment"] == 0


def status(task: Path) -> dict[str, str]:
    lines = (task / "status").read_text("ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def limits(process_id: int) -> dict[str, str]:
    lines = Path(f"/proc/{process_id}/limits").read_text("ascii").splitlines()[1:]
    return {line[:26].strip(): line[26:47].strip() for line in lines}


def tasks_of(process_id: int) -> list[Path]:
    return list(Path(f"/proc/{process_id}/task").iterdir())


def memory_killers_score(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/oom_score_adj").read_text("ascii"))


async def test_every_thread_of_a_models_process_is_closed(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Exp", ["x"], ["y"])], "g", infos[:1], infos[1:])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data = model.SerializeToString()
    store = ModelStore(tmp_path / "store")
    pool = WorkerPool(store, directory=tmp_path)
    header = UploadHeader(version=None, files=(("m.onnx", len(data)),), default_shape=None, load=False)
    upload = store.begin_upload("m", header)
    upload.write(data)
    upload.complete()
    stored = upload.register()
    one = Tensor(name="x", datatype=Datatype.FP32, shape=(1,), data=np.zeros(1, np.float32))
    try:
        (output,) = await pool.infer(stored, "public", (one,))
        assert output.data == 1
        (process_id,) = pool.process_ids
        tasks = tasks_of(process_id)
        assert len(tasks) >= 2  # the one that watches the socket, at least
        for task in tasks:
            words = status(task)
            assert (words["NoNewPrivs"], words["Seccomp"]) == ("1", "2")
            sets = ("CapInh", "CapPrm", "CapEff", "CapAmb", *(("CapBnd",) if os.geteuid() == 0 else ()))
            assert {words[name] for name in sets} == {"0" * 16}
        of_process = limits(process_id)
        assert of_process["Max core file size"] == of_process["Max file size"] == "0"
        assert of_process["Max open files"] == str(MAX_DESCRIPTORS)
        assert of_process["Max address space"] != "unlimited"
        assert memory_killers_score(process_id) == 1000
    finally:
        await pool.close()
        store.close()


def test_this_machine_has_what_it_takes() -> None:
    assert missing_mechanisms() == ()


@pytest.mark.network
@pytest.mark.parametrize(("number", "words"), [(LANDLOCK_CREATE_RULESET, "Landlock"), (SECCOMP, "seccomp filters")])
def test_without_a_mechanism_it_refuses_and_says_which(number: int, words: str) -> None:
    ended = script(WITHOUT_CALL + "close_process(max_address_space_bytes=4 * GIB)", number)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert "SandboxMissingError: the kernel lacks" in last
    assert words in last


@pytest.mark.network
@pytest.mark.parametrize(
    ("number", "refusal", "has"),
    [(LANDLOCK_CREATE_RULESET, "EPERM", (False, True)), (SECCOMP, "EACCES", (True, False))],
)
def test_an_operator_may_go_on_without_one_loudly_and_the_other_still_holds(
    number: int, refusal: str, has: tuple[bool, bool]
) -> None:
    ended = script(
        WITHOUT_CALL
        + """
import errno
closed = close_process(max_address_space_bytes=4 * GIB, missing_allowed=True)
try:
    os.open("/etc/passwd", os.O_RDONLY)
except OSError as error:
    print(errno.errorcode[error.errno], closed.landlock_version > 0, closed.seccomp)
""",
        number,
    )
    assert ended.stdout == f"{refusal} {has[0]} {has[1]}\n"
    assert "the kernel lacks" in ended.stderr
    assert "less confined" in ended.stderr


@pytest.mark.network
def test_a_worker_that_cannot_close_itself_ends_before_it_reads_the_model() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    requests, answers = (create_arena(name, 4096) for name in ("requests", "answers"))
    load = Load(
        files=(FileEntry("m.onnx", 1),),  # its memory file is not there: reading it would be another end
        graph_optimization="all",
        providers=("cpu",),
        threads=1,
        max_answer_bytes=4096,
        max_address_space_bytes=1 << 34,
        rows_wanted=False,
    )
    header = encode_header(load)
    Arena(requests, writable=True).write_header(header)
    inherited = (theirs.fileno(), theirs.fileno(), requests, answers)
    code = BEGIN + WITHOUT_CALL.replace("NUMBER", str(LANDLOCK_CREATE_RULESET)) + f"worker.main{inherited}"
    with ours, theirs:
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=inherited)
        ours.sendall(DOORBELL.pack(LOAD, len(header), 0))
        assert process.wait(SOON_S) == EXIT_STATUS
        with pytest.raises(BlockingIOError):
            ours.recv(100, socket.MSG_DONTWAIT)
    for descriptor in (requests, answers):
        os.close(descriptor)


@pytest.mark.network
def test_a_thread_that_would_stay_open_is_a_reason_to_refuse() -> None:
    ended = script("threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
                   "close_process(max_address_space_bytes=4 * GIB)")  # fmt: skip
    assert ended.returncode == 1
    assert "threads were started" in ended.stderr


@pytest.mark.network
def test_onnx_runtimes_telemetry_never_starts(tmp_path: Path) -> None:
    """It is on by default: a thread, an identifier in the home folder, a maker to call."""
    code = BEGIN + "print(len(os.listdir('/proc/self/task')))"
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, timeout=SOON_S, env=environment
    )
    assert ended.stdout == b"1\n"
    assert list(tmp_path.rglob("*")) == []


@X86_64_ONLY
@pytest.mark.network
@pytest.mark.parametrize(
    "call",
    [
        "ctypes.CDLL(None).syscall(0x40000000 | 39)",  # getpid by x32's number
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",  # and by i386's door
    ],
)
def test_numbers_of_another_architecture_end_the_process(call: str) -> None:
    ended = script(f"""
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
{call}
print("before", flush=True)
close_process(max_address_space_bytes=4 * GIB)
{call}
print("after", flush=True)
""")
    assert ended.stdout == "before\n"
    assert ended.returncode == -signal.SIGSYS


@pytest.mark.network
def test_it_lowers_limits_and_never_raises_them() -> None:
    ended = script("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
close_process(max_address_space_bytes=4 * GIB)
print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_AS))
""")
    assert ended.stdout == f"(32, 32) {(4 * 1024**3,) * 2}\n"


PROCESS_ID = 4242


def verdict(program: Sequence[Instruction], architecture: int, number: int, *args: int) -> int:
    """The kernel's interpreter of such a program, for the five instructions that ours uses."""
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])
    accumulator, at = 0, 0
    while True:
        instruction = program[at]
        at += 1
        operand = instruction.operand
        match instruction.code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x06:
                return operand
            case 0x15 | 0x35 | 0x45:
                holds = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
                at += instruction.jump_true if holds[instruction.code] else instruction.jump_false
            case code:
                pytest.fail(f"the program holds an instruction {code:#x} that is not ours")


@pytest.mark.parametrize("architecture", list(Architecture))
def test_the_filter_allows_what_is_on_the_list_and_nothing_else(architecture: Architecture) -> None:
    program = build_filter(architecture, PROCESS_ID)
    column = list(Architecture).index(architecture)
    allowed = {numbers[column] for numbers in seccomp_filter._ALWAYS.values()} - {None}
    conditional = {numbers[column] for numbers in seccomp_filter._CONDITIONAL.values()}
    for number in range(1024):
        if number not in conditional:
            assert verdict(program, architecture, number) == (ALLOW if number in allowed else REFUSE), number
    assert verdict(program, architecture, -1) in {REFUSE, KILL_PROCESS}
    assert len(program) < 4096  # the kernel's limit


AT_FDCWD = 2**64 - 100
COMPILER_CASES = [
    ("mmap", (0, 4096, 0x5), REFUSE),
    ("mprotect", (0, 4096, 0x5), ALLOW),
    ("openat", (AT_FDCWD, 0, 0x80000), ALLOW),  # O_CLOEXEC
    ("openat", (AT_FDCWD, 0, 0x1), REFUSE),  # O_WRONLY
    ("openat", (AT_FDCWD, 0, 0x2), REFUSE),  # O_RDWR
    ("openat", (AT_FDCWD, 0, 0x40), REFUSE),  # O_CREAT
    ("openat", (AT_FDCWD, 0, 0x200), REFUSE),  # O_TRUNC
    ("openat", (AT_FDCWD, 0, 0x400000), REFUSE),  # O_TMPFILE
    ("openat", (AT_FDCWD, 0, 0x200000), REFUSE),  # O_PATH
    ("getdents64", (3,), ALLOW),
    ("newfstatat", (3, 0, 0, 0x1000), ALLOW),  # AT_EMPTY_PATH
    ("newfstatat", (AT_FDCWD, 0, 0, 0), REFUSE),
    ("readlink", (0,), EINVAL),
    ("readlinkat", (AT_FDCWD,), EINVAL),
]


@pytest.mark.parametrize("architecture", list(Architecture))
@pytest.mark.parametrize(("name", "arguments", "expected"), COMPILER_CASES)
def test_of_a_provider_that_compiles(
    architecture: Architecture, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    column = list(Architecture).index(architecture)
    number = (seccomp_filter._CONDITIONAL | seccomp_filter._COMPILER)[name][column]
    if number is not None:
        program = build_filter(architecture, PROCESS_ID, compiles=True)
        assert verdict(program, architecture, number, *arguments) == expected


@pytest.mark.parametrize("architecture", list(Architecture))
def test_a_provider_that_compiles_makes_no_other_call(architecture: Architecture) -> None:
    plain, compiles = (build_filter(architecture, PROCESS_ID, compiles=flag) for flag in (False, True))
    column = list(Architecture).index(architecture)
    its_own = {numbers[column] for numbers in seccomp_filter._COMPILER.values()}
    its_own.add(seccomp_filter._CONDITIONAL["mprotect"][column])
    for number in set(range(1024)) - its_own:
        assert verdict(plain, architecture, number) == verdict(compiles, architecture, number), number


@pytest.mark.parametrize("architecture", list(Architecture))
def test_another_architectures_numbers_end_the_process(architecture: Architecture) -> None:
    program = build_filter(architecture, PROCESS_ID)
    for other in (0x40000003, 0x40000028, *set(Architecture) - {architecture}):  # i386, arm
        assert verdict(program, other, 39) == KILL_PROCESS
    x32 = KILL_PROCESS if architecture is Architecture.X86_64 else REFUSE
    assert verdict(program, architecture, 0x40000000 | 39) == x32


THREAD = 0x3D0F00  # what pthread_create asks for
HIGH = 1 << 32
CASES = [
    ("mmap", (0, 4096, 0x3), ALLOW),
    ("mmap", (0, 4096, 0x5), REFUSE),
    ("mmap", (0, 4096, 0x7), REFUSE),
    ("mmap", (0, 4096, HIGH | 0x4), REFUSE),
    ("mprotect", (0, 4096, 0x1), ALLOW),
    ("mprotect", (0, 4096, 0x4), REFUSE),
    ("clone", (THREAD,), ALLOW),
    ("clone", (17,), REFUSE),
    ("clone", (0x4111,), REFUSE),  # vfork
    ("clone", (THREAD | 0x10000000,), REFUSE),  # and a namespace of users
    ("clone", (0x10000000,), REFUSE),
    ("clone3", (0, 88), ENOSYS),
    ("prctl", (15,), ALLOW),
    ("prctl", (4,), REFUSE),
    ("prctl", (22,), REFUSE),
    ("prctl", (38,), REFUSE),
    ("fcntl", (3, 3), ALLOW),
    ("fcntl", (3, 1030), ALLOW),
    ("fcntl", (3, 8), REFUSE),  # F_SETOWN
    ("fcntl", (3, 10), REFUSE),  # F_SETSIG
    ("fcntl", (3, 15), REFUSE),  # F_SETOWN_EX
    ("fcntl", (3, HIGH | 8), REFUSE),
    ("ioctl", (3, 0x5421), ALLOW),
    ("ioctl", (3, 0x5412), REFUSE),  # TIOCSTI
    ("tgkill", (PROCESS_ID, 7, 6), ALLOW),
    ("tgkill", (PROCESS_ID + 1, 7, 6), REFUSE),
    ("prlimit64", (0, 7, 0, 1), ALLOW),
    ("prlimit64", (1, 7, 0, 1), REFUSE),
    ("prlimit64", (0, 7, 1, 0), REFUSE),
    ("prlimit64", (0, 7, HIGH, 0), REFUSE),
    ("sendto", (3, 0, 1, 0x4000), ALLOW),
    ("sendto", (3, 0, 1, 0x1), REFUSE),
    ("sendmsg", (3, 0, 0), ALLOW),
    ("sendmsg", (3, 0, 1), REFUSE),
    ("recvfrom", (3, 0, 1, 0x40), ALLOW),
    ("recvfrom", (3, 0, 1, 0x41), REFUSE),
    ("recvmsg", (3, 0, 0x1), REFUSE),
]


@pytest.mark.parametrize("architecture", list(Architecture))
@pytest.mark.parametrize(("name", "arguments", "expected"), CASES)
def test_looks_at_arguments(architecture: Architecture, name: str, arguments: tuple[int, ...], expected: int) -> None:
    program = build_filter(architecture, PROCESS_ID)
    number = seccomp_filter._CONDITIONAL[name][list(Architecture).index(architecture)]
    assert number is not None
    assert verdict(program, architecture, number, *arguments) == expected


def test_every_call_with_conditions_has_cases() -> None:
    assert {name for name, _, _ in CASES} == set(seccomp_filter._CONDITIONAL)


@pytest.mark.network
@pytest.mark.parametrize(("number", "words"), [(LANDLOCK_CREATE_RULESET, "Landlock"), (SECCOMP, "seccomp filters")])
def test_a_server_that_could_not_close_its_models_does_not_start(number: int, words: str) -> None:
    serve = (
        "import sys; from blindai.cli.main import main; sys.argv[1:] = ['serve', '--simulation', '--port', '0']; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", "import ctypes, struct\n" + WITHOUT_CALL.replace("NUMBER", str(number)) + serve],
        capture_output=True,
        text=True,
        check=False,
        timeout=SOON_S,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "the kernel lacks what keeps a model's process closed" in ended.stderr
    assert words in ended.stderr
