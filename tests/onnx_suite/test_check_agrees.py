"""What `blindai check` says of 40 models of the ONNX project is what a server does when they are uploaded.

Drawn by the hash of their names: 24 that ONNX Runtime runs, 8 older than the server takes, 8 that it does not run.
"""

from __future__ import annotations

import collections
import hashlib
from typing import TYPE_CHECKING

import pytest
from e2e.running_server import RunningServer
from onnx_suite.backend_cases import BackendCase, backend_cases, is_older_than_7
from onnx_suite.test_backend_suite import computed_here

from blindai import Client
from blindai.errors import BlindAIError, InferenceError
from blindai.server.model_trial import try_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.network

SHARES = {"runs": 24, "older than 7": 8, "does not run": 8}


def drawn() -> dict[BackendCase, str]:
    """40 cases, and what ONNX Runtime and the guard make of each."""
    kinds: collections.Counter[str] = collections.Counter()
    chosen: dict[BackendCase, str] = {}
    plain = [case for case in backend_cases() if all(array.dtype.isbuiltin for array in case.inputs.values())]
    for case in sorted(plain, key=lambda case: hashlib.sha256(case.name.encode()).digest()):
        kind = "older than 7" if is_older_than_7(case) else "runs" if computed_here(case) else "does not run"
        if kinds[kind] < SHARES[kind]:
            kinds[kind] += 1
            chosen[case] = kind
        if len(chosen) == sum(SHARES.values()):
            break
    assert kinds == SHARES
    return chosen


def checked(path: Path, case: BackendCase) -> str:
    """The verdict of the check: `runs`, or why not."""
    try:
        trial = try_model(path, case.inputs)
    except BlindAIError as error:
        return str(error)
    return trial.run_problem or f"runs as {trial.digest}"


def uploaded(client: Client, path: Path, case: BackendCase) -> str:
    """What happens on the server."""
    try:
        model = client.upload_model(path, progress=False)
    except BlindAIError as error:
        return str(error)
    try:
        client.infer(path.stem, case.inputs)
    except InferenceError as error:
        return f"{error} {error.hint}".strip()
    finally:
        client.delete_model(path.stem)
    return f"runs as {model.digest}"


def test_a_check_says_what_an_upload_does(tmp_path: Path, tell: Callable[[str], None]) -> None:
    server = RunningServer(tmp_path / "log")
    verdicts: dict[str, tuple[str, str, str]] = {}
    try:
        with Client(server.url, insecure_simulation=True) as client:
            for number, (case, kind) in enumerate(drawn().items()):
                path = tmp_path / f"case{number}.onnx"
                path.write_bytes(case.model)
                verdicts[case.name] = (kind, checked(path, case), uploaded(client, path, case))
    finally:
        server.stop()
    different = {name: found for name, found in verdicts.items() if found[1] != found[2]}
    assert not different
    runs = collections.Counter(kind for kind, said, _ in verdicts.values() if said.startswith("runs as "))
    tell(f"{len(verdicts)} models checked and uploaded, the same said of each; {runs['runs']} run")
    assert runs == {"runs": SHARES["runs"]}
