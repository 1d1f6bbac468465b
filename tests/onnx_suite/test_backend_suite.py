"""The ONNX backend suite through a running server: bit for bit what ONNX Runtime computes in this process.

Where ONNX Runtime does not run a case by itself, the server must refuse it too. What the server's guard refuses though
ONNX Runtime may run it are models older than operator set 7, and nothing else; each is asked again after the upgrade
that the refusal advises. No two cases share a process: each is uploaded, run in its own, and deleted.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from e2e.running_server import RunningServer
from onnx_suite.backend_cases import BackendCase, backend_cases, is_older_than_7, upgraded

from blindai import AsyncClient
from blindai.errors import InferenceError, ModelStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.oip.tensors import Tensor

pytestmark = pytest.mark.network

AT_A_TIME = 4  # while one process computes, others start
TOO_OLD = "7 to 28 are accepted"
WARM_UP_CASES = 200
GROWTH_BYTES = 64 << 20
GOOD = {"equal", "refused by both", "guarded"}


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
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        if not type(error).__module__.startswith("onnxruntime"):
            raise  # a mistake of this test
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
    too_old = is_older_than_7(case)
    try:
        await client.upload_model(path, progress=False)
        result = await client.infer(path.stem, case.inputs)
    except (InferenceError, ModelStoreError) as error:
        if too_old and TOO_OLD in str(error):
            return "guarded"
        return "refused by both" if expected is None else f"refused: {type(error).__name__}: {error} {error.hint}"
    finally:
        path.unlink()
        with contextlib.suppress(InferenceError):  # it never was there
            await client.delete_model(path.stem)
    if expected is None or too_old:
        return "ran, and should not"
    right = all(same(found, value) for found, value in zip(result.outputs, expected, strict=True))
    return "equal" if right else "DIFFERENT"


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own or shared."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Judged:
    """What became of every case, and the server's memory after the first of them."""

    verdicts: dict[str, str] = field(default_factory=dict)
    warm_bytes: int = 0

    def note(self, case: BackendCase, verdict: str, server: RunningServer) -> None:
        self.verdicts[case.name] = verdict
        if len(self.verdicts) == WARM_UP_CASES:
            self.warm_bytes = resident_bytes(server.process_id)


async def judge_all(server: RunningServer, folder: Path) -> Judged:
    judged, queue = Judged(), enumerate(backend_cases())

    async def work(client: AsyncClient) -> None:
        for number, case in queue:
            verdict = await judge(client, case, folder, number)
            judged.note(case, verdict, server)
            if verdict == "guarded" and (newer := upgraded(case)):
                judged.note(newer, await judge(client, newer, folder, number), server)

    async with AsyncClient(server.url, insecure_simulation=True, timeout_s=300) as client:
        await asyncio.gather(*(work(client) for _ in range(AT_A_TIME)))
        assert await client.models() == ()
    return judged


def test_every_case_is_what_onnx_runtime_computes(tmp_path: Path, tell: Callable[[str], None]) -> None:
    server = RunningServer(tmp_path / "log")
    began_s = time.monotonic()
    try:
        judged = asyncio.run(judge_all(server, tmp_path))
        grown = resident_bytes(server.process_id) - judged.warm_bytes
        left = server.model_processes()
    finally:
        server.stop()
    counts = collections.Counter(verdict.split(":")[0] for verdict in judged.verdicts.values())
    newer = [verdict for name, verdict in judged.verdicts.items() if name.endswith(" upgraded")]
    tell(
        f"{len(judged.verdicts)} cases in {time.monotonic() - began_s:.0f} s: {dict(counts)}; of the guarded ones "
        f"{newer.count('equal')} are equal after their upgrade; from case {WARM_UP_CASES} on the server grew by "
        f"{grown / 1e6:.1f} MB, and {len(left)} processes are left"
    )
    wrong = {name: verdict for name, verdict in judged.verdicts.items() if verdict not in GOOD}
    assert not wrong, "\n".join(f"{name}: {verdict}" for name, verdict in sorted(wrong.items()))
    assert counts["equal"] > 1700
    assert not left
    assert grown < GROWTH_BYTES
