"""The house keeps its floors: who may import whom, what the client side may need, how long and how named files are.

A room is a package directory or a top-level module of src/blindai.
A file imports from rooms of strictly lower floors, or from its own.
Every import counts: inside functions, under TYPE_CHECKING, and by `import_module("literal")`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[1] / "src"
FACE = "blindai"  # src/blindai/__init__.py stands outside the house: it shows what is inside, when asked

FLOORS = {
    "blindai.cli": 6,
    "blindai.proxy": 5,
    "blindai.client": 4,
    "blindai.server": 4,
    "blindai.channel": 3,
    "blindai.receipts": 3,
    "blindai.endorsements": 3,
    "blindai.evidence_files": 3,
    "blindai.policies": 3,
    "blindai.attester": 3,
    "blindai.attestation": 2,
    "blindai.pipeline": 2,
    "blindai.oip": 1,
    "blindai.bundle": 1,
    "blindai.bundle_files": 2,
    "blindai.model_guard": 1,
    "blindai.errors": 0,
    "blindai.hkdf": 0,
    "blindai.wire": 0,
}
# Rooms that may see less than their floor allows.
# The proxy sees no key and no message: the client does for it, and it knows the words of appraisal and of failure.
ONLY = {"blindai.proxy": {"blindai.client", "blindai.oip", "blindai.attestation", "blindai.errors"}}
# What the face may show; never the server's half.
FACE_SHOWS = {"blindai.client", "blindai.attestation", "blindai.endorsements", "blindai.oip", "blindai.errors"}

SERVER_SIDE = {"blindai.server", "blindai.model_guard", "blindai.attester"}
UNIX_ONLY = {
    "crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty", "uvloop",
}  # fmt: skip
SERVER_ONLY = {
    "httptools",
    "onnx",
    "onnxruntime",
    "prometheus_client",
}  # the extra [server], which a client does without

# The verifier's whole world beside this project: values in, values out. No network, clock, system, files or randomness.
PURE_ROOM = "blindai.attestation"
PURE_MODULES = {
    "__future__", "abc", "base64", "binascii", "collections", "contextlib", "dataclasses", "enum", "functools",
    "hashlib", "hmac", "itertools", "re", "tomllib", "typing",
    "cbor2",         # Nitro's documents
    "cryptography",  # signatures and certificates; its keys are read, and never made
    "datetime",      # forms of time; whose `now` nobody may ask
    "importlib",     # whether an extra is installed
    "lxml", "signxml",  # NVIDIA's RIMs, the extra [nvidia]
    "warnings",      # of a parser that warns of what a vendor signed
}  # fmt: skip
# What those modules, or the language, would still give: clocks, keys drawn at random, files and terminals.
IMPURE_NAMES = {"now", "utcnow", "today", "generate", "generate_private_key", "generate_key", "generate_parameters",
                "open", "input", "print", "eval", "exec"}  # fmt: skip

MAX_LINES = 400
NAMES_THAT_SAY_NOTHING = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for path in (SOURCE / "blindai").rglob("*.py"))
MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str | None:
    """The room that holds a module, the face for the package root, or None for what no table names."""
    room = ".".join(module.split(".")[:2])
    return room if room in FLOORS or room == FACE else None


def imported_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything imported; `from a import b`, and a.b after `import blindai`, come as `a:b`."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        yield from ((line, name) for name in _names_in(node))


def _names_in(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import():  # `import blindai` is judged by what is then used of it
            yield from (alias.name for alias in node.names if alias.name != FACE or alias.asname)
        case ast.ImportFrom():
            yield from (f"{'.' * node.level}{node.module or ''}:{alias.name}" for alias in node.names)
        case ast.Attribute(value=ast.Name(id="blindai")):
            yield f"{FACE}:{node.attr}"
        case ast.Call(args=[ast.Constant(value=str(module)), *_]) if _is_import_call(node.func):
            yield module


def _is_import_call(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"import_module", "__import__"}


def target_of(name: str) -> str:
    """The module behind an imported name: `blindai:wire` is blindai.wire, `blindai:__version__` the face itself."""
    module, _, member = name.partition(":")
    inside = f"{module}.{member}"
    return inside if member and (room_of(inside) in FLOORS or inside in MODULES) else module


def is_ours(module: str) -> bool:
    return module == FACE or module.startswith((FACE + ".", "."))


def floor_violations(module: str, source: str) -> list[str]:
    """Every import in a module's source that the floors forbid, in words."""
    return [
        f"{module}:{line}: {complaint}"
        for line, name in imported_names(source)
        if is_ours(name.partition(":")[0]) and (complaint := _complaint(module, name))
    ]


def _complaint(module: str, name: str) -> str:
    here, there = room_of(module), room_of(target_of(name))
    if name.startswith("."):
        return f"relative import of {name}"
    if here is None or there is None:
        return f"no floor is known for {module if here is None else target_of(name)}; name it in FLOORS"
    if there == FACE != here:
        return "" if name.startswith(f"{FACE}:__") else f"{name} is reached through the package root"
    return "" if here == there or there in _visible_from(here) else f"{here} may not import {there}"


def _visible_from(room: str) -> set[str]:
    """The other rooms that a room may import from."""
    if room == FACE:
        return FACE_SHOWS
    return ONLY.get(room, {other for other, floor in FLOORS.items() if floor < FLOORS[room]})


def foreign_imports(source: str, forbidden: set[str]) -> list[str]:
    """Imports of forbidden top-level modules, as `line: module`."""
    modules = ((line, name.partition(":")[0].split(".")[0]) for line, name in imported_names(source))
    return [f"{line}: {module}" for line, module in modules if module in forbidden]


def client_side() -> list[str]:
    return [module for module in MODULES if room_of(module) not in SERVER_SIDE]


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_lower_floors(module: str) -> None:
    assert floor_violations(module, MODULES[module].read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("blindai.wire", "from blindai.errors import BlindAIError"),
        ("blindai.attestation.appraise", "import blindai.channel.keyset"),
        ("blindai.receipts", "from blindai.channel import keyset"),
        ("blindai.client.flows", "from blindai.server.settings import Settings"),
        ("blindai.server.app", "def start():\n    from blindai import client"),
        ("blindai.channel.sealed", "if TYPE_CHECKING:\n    from blindai.client.flows import Flow"),
        ("blindai.channel.sealed", "import importlib\nimportlib.import_module('blindai.cli.main')"),
        ("blindai.oip.rest", "from ..channel import frames"),
        ("blindai.proxy.page", "from blindai.channel import sealed"),
        ("blindai.proxy.page", "from blindai.wire import label"),
        ("blindai.errors", "import blindai\nblindai.connect()"),
        ("blindai.channel.sealed", "import blindai\nblindai.client.connect"),
        ("blindai.cli.main", "import blindai as b"),
        ("blindai.cli.demo", "from blindai import connect"),
        ("blindai", "from blindai.server.app import create_app"),
        ("blindai.cellar", "import os\nimport blindai.wire"),
        ("blindai.cli.main", "import blindai.cellar"),
    ],
)
def test_checker_finds_a_planted_violation(module: str, source: str) -> None:
    assert len(floor_violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("blindai.cli.serve", "from blindai.server.app import create_app"),
        ("blindai.attestation.tee.simulation", "from blindai.attestation.evidence import Finding"),
        ("blindai.server.app", "from blindai import __version__, errors, wire"),
        ("blindai.server.app", "import blindai\nprint(blindai.__file__, blindai.errors)"),
        ("blindai", "def __getattr__(name):\n    from blindai.client import connect\n    return connect"),
        ("blindai.proxy.page", "from blindai import client\nfrom blindai.oip import rest"),
        ("blindai.errors", "import blindaix, os.path"),
    ],
)
def test_checker_accepts_what_the_floors_allow(module: str, source: str) -> None:
    assert floor_violations(module, source) == []


def test_every_module_has_a_floor() -> None:
    assert [module for module in MODULES if room_of(module) is None] == []


def test_the_package_root_imports_nothing_of_ours_at_import() -> None:
    program = "import sys, blindai; print(*sorted(name for name in sys.modules if name.startswith('blindai')))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["blindai"]


@pytest.mark.parametrize("module", client_side())
def test_client_side_names_no_unix_only_or_server_module(module: str) -> None:
    assert foreign_imports(MODULES[module].read_text("utf-8"), UNIX_ONLY | SERVER_ONLY) == []


def test_checker_finds_a_planted_unix_only_import() -> None:
    source = "import os.path\ndef lock():\n    import fcntl\n    from resource import RLIMIT_CORE\n"
    assert foreign_imports(source, UNIX_ONLY) == ["3: fcntl", "4: resource"]


def test_client_side_imports_where_unix_only_modules_are_missing() -> None:
    # What Windows lacks is taken away before the imports. The standard library's own Unix-only needs are met first
    # (subprocess, for one), and `posix` stays, since it is `os` itself here.
    blocked = sorted((UNIX_ONLY | SERVER_ONLY) - {"posix"})
    program = f"""
import asyncio, importlib, logging, multiprocessing, os, random, socket, ssl, subprocess, sys, tempfile, uuid
sys.modules.update(dict.fromkeys({blocked!r}))
for name in ("fork", "register_at_fork", "sched_getaffinity", "memfd_create", "geteuid", "getuid"):
    if hasattr(os, name):
        delattr(os, name)
for module in {client_side()!r}:
    importlib.import_module(module)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def impurities(source: str) -> list[str]:
    """Every import and name in a source that would let the outside world into a decision, as `line: name`."""
    modules = ((line, name.partition(":")[0].split(".")[0]) for line, name in imported_names(source))
    found = [f"{line}: {module}" for line, module in modules if module not in PURE_MODULES | {FACE}]
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return found + [f"{call.lineno}: {_called(call.func)}" for call in calls if _called(call.func) in IMPURE_NAMES]


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) == PURE_ROOM])
def test_the_verifier_is_pure(module: str) -> None:
    assert impurities(MODULES[module].read_text("utf-8")) == []


def test_checker_finds_planted_impurities() -> None:
    source = """
import os, socket
from pathlib import Path
def decide():
    import time
    Ed25519PrivateKey.generate()
    return datetime.now(), open("policy.toml"), importlib.import_module("random")
"""
    found = ["2: os", "2: socket", "3: pathlib", "5: time", "7: random", "6: generate", "7: now", "7: open"]
    assert sorted(impurities(source)) == sorted(found)


@pytest.mark.parametrize("module", MODULES)
def test_files_are_one_room_long(module: str) -> None:
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= MAX_LINES


def test_no_two_test_files_have_one_name() -> None:
    """Tests are no packages: pytest could not tell them apart, and whoever runs one folder would not notice."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_names_say_what_is_inside() -> None:
    vague = {*NAMES_THAT_SAY_NOTHING, *(f"_{name}" for name in NAMES_THAT_SAY_NOTHING)}
    paths = [path.relative_to(SOURCE) for path in FILES]
    assert [str(path) for path in paths if vague & set(path.with_suffix("").parts)] == []
