"""A model of 1.9 GB passes through both processes without either ever holding it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.processes import served
from e2e.tiny_models import in_process, times
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

pytestmark = pytest.mark.network

COLUMNS = 64
ROW_BYTES = COLUMNS * 4
LARGE_ROWS = 1_900_000_000 // ROW_BYTES
MAX_GROWTH_BYTES = 64_000_000
PIECE = os.urandom(ROW_BYTES * 4096)  # 1 MiB

# Waits for a line on stdin before the large upload, so that both processes are measured from a moment of rest.
CLIENT = """
import json, sys, time
import numpy as np
import blindai

def memory(name):
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields[name].split()[0]) * 1024

url, tiny, large = sys.argv[1:]
with blindai.connect(url, insecure_simulation=True) as client:
    client.upload_model(tiny)
    client.infer("tiny", np.ones((1, 3), np.float32))
    open("/proc/self/clear_refs", "w").write("5")
    before = memory("VmRSS")
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    uploaded = client.upload_model(large, load=False)
    seconds = time.monotonic() - began
    print(json.dumps({"growth": memory("VmHWM") - before, "seconds": seconds, "digest": uploaded.digest}), flush=True)
    sys.stdin.readline()
"""


def varint(number: int) -> bytes:
    """A protobuf base-128 number."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def head(field: int, length: int) -> bytes:
    """Tag and length of a protobuf field of bytes."""
    return varint(field << 3 | 2) + varint(length)


def write_lookup(path: Path, rows: int) -> None:
    """Y = table[i], with `rows` rows of random FP32 bits as one initialiser, written without ever holding them.

    ModelProto 1 ir_version, 8 opset_import, 7 graph; GraphProto 1 node, 2 name, 5 initializer, 11 input, 12 output;
    TensorProto 1 dims, 2 data_type, 8 name, 9 raw_data (onnx.proto3).
    """
    node = helper.make_node("Gather", ["table", "i"], ["y"]).SerializeToString()
    given = helper.make_tensor_value_info("i", TensorProto.INT64, ["n"]).SerializeToString()
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", COLUMNS]).SerializeToString()
    opset = helper.make_opsetid("", 19).SerializeToString()
    size = rows * ROW_BYTES
    dims = b"".join(b"\x08" + varint(axis) for axis in (rows, COLUMNS))
    tensor = dims + b"\x10\x01" + head(8, 5) + b"table" + head(9, size)
    rest = b"".join(head(field, len(part)) + part for field, part in ((1, node), (2, b"g"), (11, given), (12, wanted)))
    graph = rest + head(5, len(tensor) + size) + tensor
    with path.open("wb") as file:
        file.write(b"\x08\x09" + head(8, len(opset)) + opset + head(7, len(graph) + size) + graph)
        write_rows(file, size)


def write_rows(file: BinaryIO, size: int) -> None:
    file.writelines(PIECE[: min(len(PIECE), size - start)] for start in range(0, size, len(PIECE)))


def memory(pid: int, field: str) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields[field].split()[0]) * 1024


def test_what_is_written_by_hand_is_a_model(tmp_path: Path) -> None:
    write_lookup(tmp_path / "small.onnx", 5)
    table = np.frombuffer(PIECE[: 5 * ROW_BYTES], np.float32).reshape(5, COLUMNS)
    [answer] = in_process(tmp_path / "small.onnx", {"i": np.array([4, 0], np.int64)})
    assert answer.tobytes() == table[[4, 0]].tobytes()


def test_neither_process_grows_with_the_model(tmp_path: Path, tell: Callable[[str], None]) -> None:
    large = tmp_path / "large.onnx"
    try:
        write_lookup(large, LARGE_ROWS)
        size = large.stat().st_size
        told, server_growth, stored = upload_measured(tmp_path, large)
    finally:
        large.unlink(missing_ok=True)
    tell(
        f"{size:,} bytes in {told['seconds']:.1f} s, {size / told['seconds'] / 1e6:.0f} MB/s; "
        f"the client grew by {told['growth'] / 1e6:.1f} MB, the server by {server_growth / 1e6:.1f} MB"
    )
    assert size > 1_899_000_000
    assert size < stored < size * 1.065  # encrypted and padded, and all of it
    assert told["growth"] < MAX_GROWTH_BYTES
    assert server_growth < MAX_GROWTH_BYTES


def upload_measured(folder: Path, large: Path) -> tuple[dict[str, float], int, int]:
    """What the client tells, by how much the server grew at most, and how much it has on disk."""
    tiny = times(folder / "tiny.onnx", 2.0)
    with served(folder / "served") as server:
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, server.url, str(tiny), str(large)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
            time.sleep(0.5)  # what the small requests still had to tidy up
            with contextlib.suppress(PermissionError):  # only root may; else the peak of the start counts too
                Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak starts anew
            before = memory(server.pid, "VmRSS")
            client.stdin.write("go\n")
            client.stdin.flush()
            told = json.loads(client.stdout.readline())
            growth = memory(server.pid, "VmHWM") - before
            stored = sum(file.stat().st_size for file in (server.folder / "data").rglob("*") if file.is_file())
            client.stdin.write("end\n")
        assert client.returncode == 0
    return told, growth, stored
