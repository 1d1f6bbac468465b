"""Takes a model through what an upload does, on its owner's machine: the guard, a closed process, one run.

The same store, pool and process as a server's, without its doors, so what is found here is what a server with the
same limits would say. Leaves out: how it looks (cli/check.py), and the settings of a server that is not the default.
"""

from __future__ import annotations

import asyncio
import collections
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from blindai.bundle import UploadHeader
from blindai.bundle_files import discover_bundle, discover_upload
from blindai.errors import InferenceError, InvalidModelError
from blindai.model_guard.operators import check_operator, plain_domain
from blindai.oip.random_tensors import random_tensors
from blindai.server.forking import worker_environment
from blindai.server.model_store import ModelStore
from blindai.server.row_independence import judge_rows
from blindai.server.runner_start import PoolOptions
from blindai.server.variant_report import sample_inputs
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from blindai.server.model_store import StoredModel
    from blindai.server.row_independence import RowVerdict
    from blindai.server.runner import ModelFace

_SHARE = "trial"
_PIECE_BYTES = 1 << 20
_RUNS = 5
_WORDS_WITHIN_S = 300
# What draws numbers: without a seed, answers differ from run to run.
_DRAWS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignOperator:
    """An operator that the guard does not let through.

    Attributes:
        name: `domain:operator`.
        times: nodes that use it.
        hint: what to do.
    """

    name: str
    times: int
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Causes:
    """Why a model is refused, for its owner: a server says less, for it quotes no model.

    Attributes:
        operators: every one that the guard does not let through.
        engine_words: what ONNX Runtime says, if it is that which refuses.
    """

    operators: tuple[ForeignOperator, ...]
    engine_words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A model that a server would serve.

    Attributes:
        digest: what the server answers to its upload.
        size_bytes: of all its files.
        opset: version of `ai.onnx` that it uses.
        nodes: of its main graph.
        face: its inputs, outputs and precision.
        rows: whether requests may be joined, and why not.
        draws: its operators that draw numbers without a seed, by name.
        load_s: from its bytes to its readiness, the start of a process included.
        run_ms: median time of a run, one request of one row; `None` if none succeeded.
        run_problem: why the run failed, and what to do; empty if it did not.
        random_sample: whether the input was made up.
    """

    digest: str
    size_bytes: int
    opset: int
    nodes: int
    face: ModelFace
    rows: RowVerdict
    draws: tuple[str, ...]
    load_s: float
    run_ms: float | None
    run_problem: str
    random_sample: bool


def try_model(path: Path, sample: Mapping[str, Any] | None) -> Trial:
    """Load a model as a server does, and run it.

    Args:
        path: the `.onnx` file; what lies beside it by its name belongs to it, its pipeline too.
        sample: inputs of one request by name; random numbers if `None`.

    Raises:
        BlindAIError: what a server would answer to the upload.
        InvalidInputError: the sample does not fit the model.
    """
    files = discover_upload(path, None)
    with tempfile.TemporaryDirectory(prefix="blindai-check-") as folder:
        store = ModelStore(Path(folder) / "store")
        try:
            model = store_files(store, path.stem, files)
            tried = asyncio.run(_try(store, model, sample))
        finally:
            store.close()
    graph = onnx.load(path, load_external_data=False)  # the guard has read it by now
    return Trial(
        digest=model.digest,
        size_bytes=sum(file.stat().st_size for file in files),
        opset=next(entry.version for entry in graph.opset_import if plain_domain(entry.domain) == ""),
        nodes=len(graph.graph.node),
        face=tried.face,
        rows=judge_rows(graph),
        draws=tuple(sorted({node.op_type for node in _all_nodes(graph) if _draws(node)})),
        load_s=tried.load_s,
        run_ms=tried.run_ms,
        run_problem=tried.run_problem,
        random_sample=sample is None,
    )


def store_files(store: ModelStore, name: str, files: Sequence[Path]) -> StoredModel:
    """Take a model's files into a store, a piece at a time."""
    sizes = tuple((file.name, file.stat().st_size) for file in files)
    upload = store.begin_upload(name, UploadHeader(version=None, files=sizes, default_shape=None, load=False))
    for file in files:
        with file.open("rb") as source:
            while piece := source.read(_PIECE_BYTES):
                upload.write(piece)
    upload.complete()
    return upload.register()


def find_causes(path: Path) -> Causes:
    """Why a server refuses a model, as far as there is more to say than its answer."""
    try:
        files = discover_bundle(path, None)
    except InvalidModelError:  # no bundle; its message says all
        return Causes(operators=(), engine_words="")
    return Causes(operators=_foreign_operators(path), engine_words=_engine_words(files))


def _foreign_operators(path: Path) -> tuple[ForeignOperator, ...]:
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return ()
    own = {(plain_domain(function.domain), function.name) for function in model.functions}
    counted = collections.Counter(
        (node.domain, node.op_type)
        for node in _all_nodes(model)
        if (plain_domain(node.domain), node.op_type) not in own and _is_foreign(node)
    )
    return tuple(
        ForeignOperator(name=f"{domain}:{operator}", times=times, hint=_what_to_do(domain))
        for (domain, operator), times in sorted(counted.items())
    )


def _engine_words(files: Sequence[Path]) -> str:
    """Of a closed process that tries to load them; nothing if it can, or dies without a word."""
    command = [sys.executable, "-P", "-m", "blindai.server.load_words", *map(str, files)]
    ended = subprocess.run(  # noqa: S603  # no shell
        command, capture_output=True, check=False, timeout=_WORDS_WITHIN_S, text=True, env=worker_environment()
    )
    return ended.stdout.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    face: ModelFace
    load_s: float
    run_ms: float | None
    run_problem: str


async def _try(store: ModelStore, model: StoredModel, sample: Mapping[str, Any] | None) -> _Tried:
    pool = WorkerPool(store, PoolOptions(batching=False, max_workers=1))
    try:
        begun_s = time.perf_counter()
        face = await pool.metadata(model, _SHARE)
        load_s = time.perf_counter() - begun_s
        given = None if sample is None else sample_inputs(face.inputs, sample)
        run_ms, problem = None, ""
        try:
            inputs = random_tensors(face.inputs, rows=1) if given is None else given
            run_ms = await _median_ms(pool, model, inputs)
        except InferenceError as error:
            problem = f"{error} {error.hint}".strip()
        return _Tried(face=face, load_s=load_s, run_ms=run_ms, run_problem=problem)
    finally:
        await pool.close()


async def _median_ms(pool: WorkerPool, model: StoredModel, inputs: Any) -> float:
    took_s = []
    for _ in range(_RUNS):
        begun_s = time.perf_counter()
        await pool.infer(model, _SHARE, inputs)
        took_s.append(time.perf_counter() - begun_s)
    return 1000 * sorted(took_s)[_RUNS // 2]


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        yield from _with_subgraphs(nodes)


def _with_subgraphs(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _with_subgraphs(graph.node)


def _is_foreign(node: onnx.NodeProto) -> bool:
    try:
        check_operator(node)
    except InvalidModelError:
        return True
    return False


def _draws(node: onnx.NodeProto) -> bool:
    return node.op_type in _DRAWS and not any(attribute.name == "seed" for attribute in node.attribute)


def _what_to_do(domain: str) -> str:
    hints = {
        "ai.onnx.contrib": "leave pre- and post-processing out of the exported graph, and declare it as a pipeline",
        "com.microsoft": "save the optimised model with level `extended` at most, or check it as it was before",
        "aten": "torch had no ONNX form for it: export with torch.onnx.export(…, dynamo=True) or a newer opset_version",
        "ai.onnx.training": "export the model for inference: model.eval(), training=TrainingMode.EVAL",
    }
    return hints.get(
        domain.removeprefix("org.pytorch."), "write it with operators of ai.onnx, or as a function of the model"
    )
