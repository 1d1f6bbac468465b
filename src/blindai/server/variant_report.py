"""Compares a variant of a model with the original: size, digest, differences of answers, time, and joining.

Both run in the engine that the server uses, on one thread, and on tensors: a pipeline is part of both, and the same.
Leaves out: making the variant (variants.py), and how the report looks (cli/optimize.py).
"""

from __future__ import annotations

import hashlib
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from blindai.bundle import BundleFile, ModelManifest, digest_text
from blindai.bundle_files import discover_bundle, pipeline_beside
from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype, widen_bf16
from blindai.oip.random_tensors import random_tensors
from blindai.oip.tensors import Tensor, TensorSpec, tensor_for
from blindai.pipeline.declaration import parse
from blindai.server.engine import Engine
from blindai.server.precision import precision_of
from blindai.server.row_independence import judge_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_RUNS = 30
_MAX_TIMING_S = 3.0
_SCORES_RANK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of the two models.

    Attributes:
        path: of the `.onnx` file.
        digest: what the server will answer to its upload, under this file name.
        size_bytes: of all its files.
        precision: by `server.precision`.
        joinable: whether the server may join requests to it.
        median_ms: of a run.
    """

    path: str
    digest: str
    size_bytes: int
    precision: str
    joinable: bool
    median_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one output of the variant differs from the original's.

    Attributes:
        output: its name.
        largest: greatest difference of an element; `None` for text.
        mean: mean difference of an element; `None` for text.
        agreement: share of rows with the same greatest score, or of equal elements where the output is not of scores.
    """

    output: str
    largest: float | None
    mean: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that `blindai optimize` shows.

    Attributes:
        original: the model that was given.
        variant: the model that was written.
        differences: one for each output.
        random_sample: whether the inputs were made up.
    """

    original: Variant
    variant: Variant
    differences: tuple[Difference, ...]
    random_sample: bool

    @property
    def speedup(self) -> float:
        """How many times as fast the variant is."""
        return self.original.median_ms / self.variant.median_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    path: Path
    engine: Engine
    manifest: ModelManifest
    precision: str
    joinable: bool


def compare(original: Path, variant: Path, sample: Mapping[str, Any] | None) -> Report:
    """Run both models on the sample, or on random numbers.

    Raises:
        InvalidModelError: the server would refuse one of them, or cannot read the pipeline.
        InvalidInputError: the sample does not fit the model.
        InternalError: a model fails on the sample.
    """
    both = (_load(original), _load(variant))
    inputs = random_tensors(both[0].engine.inputs) if sample is None else sample_inputs(both[0].engine.inputs, sample)
    answers = [one.engine.run(inputs, ()) for one in both]
    medians = _medians(both, inputs)
    first, second = (_variant(one, median) for one, median in zip(both, medians, strict=True))
    differences = tuple(_difference(one, other) for one, other in zip(*answers, strict=True))
    return Report(original=first, variant=second, differences=differences, random_sample=sample is None)


def _load(path: Path) -> _Loaded:
    files = {file.name: file.read_bytes() for file in discover_bundle(path, None)}
    engine = Engine()
    engine.load(files)
    pipeline = pipeline_beside(path)
    if pipeline is not None:
        files[pipeline.name] = pipeline.read_bytes()
        parse(files[pipeline.name])
    manifest = ModelManifest(
        files=tuple(
            BundleFile(path=name, size=len(data), sha256=hashlib.sha256(data).digest())
            for name, data in sorted(files.items())
        )
    )
    graph = onnx.load_model_from_string(files[path.name])
    return _Loaded(
        path=path,
        engine=engine,
        manifest=manifest,
        precision=precision_of(graph),
        joinable=judge_rows(graph).independent,
    )


def _variant(loaded: _Loaded, median_ms: float) -> Variant:
    return Variant(
        path=str(loaded.path),
        digest=digest_text(loaded.manifest.digest),
        size_bytes=sum(file.size for file in loaded.manifest.files),
        precision=loaded.precision,
        joinable=loaded.joinable,
        median_ms=median_ms,
    )


def sample_inputs(specs: tuple[TensorSpec, ...], sample: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """A sample as the model takes it.

    Raises:
        InvalidInputError: it does not fit the model.
    """
    names = {spec.name for spec in specs}
    if set(sample) != names:
        raise InvalidInputError(f"the model takes the inputs {sorted(names)}, found {sorted(sample)}")
    return tuple(tensor_for(sample[spec.name], spec) for spec in specs)


def _medians(both: tuple[_Loaded, _Loaded], inputs: tuple[Tensor, ...]) -> tuple[float, float]:
    """Milliseconds of a run, measured in turns, so that what else the machine does meets both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + _MAX_TIMING_S
    while not seconds[1] or (len(seconds[1]) < _MAX_RUNS and time.perf_counter() < end):
        for one, taken in zip(both, seconds, strict=True):
            start = time.perf_counter()
            one.engine.run(inputs, ())
            taken.append(time.perf_counter() - start)
    first, second = (1000 * statistics.median(taken) for taken in seconds)
    return first, second


def _difference(original: Tensor, variant: Tensor) -> Difference:
    if original.shape != variant.shape:
        raise InvalidInputError(f"output {original.name!r} of the variant has another shape than the original's")
    one, other = _numbers(original), _numbers(variant)
    if one is None or other is None or not one.size:
        equal = float(np.mean(original.data == variant.data)) if original.data.size else None
        return Difference(output=original.name, largest=None, mean=None, agreement=equal)
    apart = np.abs(one - other)
    apart[one == other] = 0  # equal infinities
    whole = original.data.dtype.kind in "iub"
    agreement = float(np.mean(one == other)) if whole else None
    if not whole and one.ndim >= _SCORES_RANK and one.shape[-1] >= _SCORES_RANK:
        agreement = float(np.mean(one.argmax(axis=-1) == other.argmax(axis=-1)))
    return Difference(
        output=original.name, largest=_finite(apart.max()), mean=_finite(apart.mean()), agreement=agreement
    )


def _numbers(tensor: Tensor) -> np.ndarray[Any, Any] | None:
    if tensor.datatype is Datatype.BYTES:
        return None
    return (widen_bf16(tensor.data) if tensor.datatype is Datatype.BF16 else tensor.data).astype(np.float64)


def _finite(number: np.floating[Any]) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(number) if np.isfinite(number) else None
