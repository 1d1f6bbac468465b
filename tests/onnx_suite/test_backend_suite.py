"""The ONNX backend suite through a running server: bit for bit what ONNX Runtime computes in this process.

Where ONNX Runtime does not run a case by itself, the server must refuse it too; what the server's guard refuses though
ONNX Runtime would run it is listed here, each with its reason.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from e2e.running_server import RunningServer
from onnx_suite.backend_cases import BackendCase, backend_cases

from blindai import AsyncClient
from blindai.errors import InferenceError, ModelStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.oip.tensors import Tensor

pytestmark = pytest.mark.network

AT_A_TIME = 3
# Refused before ONNX Runtime sees them, though it would run them, and why.
GUARDED: dict[str, str] = {}
GROWTH_BYTES = 64 << 20


def computed_here(case: BackendCase) -> list[Any] | None:
    """What ONNX Runtime makes of it, or None if it does not run it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    try:
        session = ort.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
        return (
            list(session.run_with_ort_values(None, {n: _value(a) for n, a in case.inputs.items()}))
            if (_has_bfloat16(session))
            else list(session.run(None, {name: _as_text(array) for name, array in case.inputs.items()}))
        )
    except Exception:  # noqa: BLE001  # ONNX Runtime raises a dozen unrelated classes
        return None


def _has_bfloat16(session: Any) -> bool:
    return any("bfloat16" in value.type for value in (*session.get_inputs(), *session.get_outputs()))


def _value(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.name == "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), 16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _as_text(array: np.ndarray[Any, Any]) -> Any:
    return array.astype(object) if array.dtype.kind in "SU" else array


def same(found: Tensor, expected: Any) -> bool:
    """Bit for bit, NaN included."""
    if isinstance(expected, ort.OrtValue):
        if expected.data_type() == "tensor(bfloat16)":
            import ctypes

            size = expected.tensor_size_in_bytes()
            raw = ctypes.string_at(expected.data_ptr(), size) if size else b""
            return found.shape == tuple(expected.shape()) and found.data.tobytes() == raw
        expected = expected.numpy()
    array = np.asarray(expected)
    if array.dtype == object or array.dtype.kind in "SU":
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in array.flat]
        return found.shape == array.shape and list(found.data.flat) == texts
    return found.shape == array.shape and found.data.dtype == array.dtype and found.data.tobytes() == array.tobytes()


async def judge(client: AsyncClient, case: BackendCase, folder: Path, number: int) -> str:
    """One word for what became of a case."""
    path = folder / f"case{number}.onnx"
    path.write_bytes(case.model)
    expected = await asyncio.to_thread(computed_here, case)
    try:
        await client.upload_model(path, progress=False)
        result = await client.infer(path.stem, case.inputs)
    except (InferenceError, ModelStoreError) as error:
        if expected is None:
            return "refused by both"
        return "guarded" if case.name in GUARDED else f"refused: {type(error).__name__}: {error} {error.hint}"
    finally:
        path.unlink()
        with contextlib.suppress(InferenceError):  # it never was there
            await client.delete_model(path.stem)
    if expected is None:
        return "ran, and here it does not"
    right = all(same(found, value) for found, value in zip(result.outputs, expected, strict=True))
    return "equal" if right else "DIFFERENT"


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own or shared."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def judge_all(server: RunningServer, folder: Path) -> dict[str, str]:
    verdicts: dict[str, str] = {}
    queue = enumerate(backend_cases())

    async def work(client: AsyncClient) -> None:
        for number, case in queue:
            verdicts[case.name] = await judge(client, case, folder, number)

    async with AsyncClient(server.url, insecure_simulation=True, timeout_s=300) as client:
        await asyncio.gather(*(work(client) for _ in range(AT_A_TIME)))
    return verdicts


def test_every_case_is_what_onnx_runtime_computes(tmp_path: Path, tell: Callable[[str], None]) -> None:
    server = RunningServer(tmp_path / "log")
    try:
        before = resident_bytes(server.process_id)
        verdicts = asyncio.run(judge_all(server, tmp_path))
        after = resident_bytes(server.process_id)
        left = server.model_processes()
    finally:
        server.stop()
    counts = collections.Counter(verdict.split(":")[0] for verdict in verdicts.values())
    tell(f"{len(verdicts)} cases: {dict(counts)}; the server grew by {(after - before) / 1e6:.1f} MB")
    wrong = {n: v for n, v in verdicts.items() if v not in ("equal", "refused by both", "guarded")}
    assert not wrong, "\n".join(f"{name}: {verdict}" for name, verdict in sorted(wrong.items()))
    assert counts["equal"] > 1500
    assert not left
    assert after - before < GROWTH_BYTES
