"""The requests that warm a model up, made from a config.pbtxt and the files in the model's folder `warmup`.

One request is made for one row and repeated to its batch size, as in Triton. Random data comes from a fixed seed, so
that a start repeats: whole numbers are 0 or 1 (an index into any table of two), the others lie in [0, 1).
Leaves out: running them (`worker_pool`, each time that a process of the model starts).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Array, Datatype, narrow_to_bf16
from blindai.oip.tensors import Tensor, TensorSpec, decode_tensor
from blindai.server.model_fit import check_inputs
from blindai.server.reshapes import to_model
from blindai.server.triton_config import datatype_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.server.model_config import ServingConfig
    from blindai.server.triton_files import RepositoryFolder

WARMUP_FOLDER = "warmup"
MAX_COUNT = 10_000
_TEXT = b"warm"
_BYTES_COST = 64  # of one element of text, roughly, in memory

Warmup = tuple[tuple[tuple[Tensor, ...], int], ...]


class WarmupReader:
    """Makes a model's warm-up requests.

    Args:
        folder: the model's.
        where: its config.pbtxt, as problems call it.
        most_bytes: largest request.

    Attributes:
        files: what was read, by path inside the model's folder.
    """

    def __init__(self, folder: RepositoryFolder, where: str, most_bytes: int) -> None:
        self._name = folder.name
        self._folder = folder.folder(WARMUP_FOLDER)
        self._findings = folder.findings
        self._where = where
        self._most_bytes = most_bytes
        self._random = np.random.default_rng(0)
        self.files: dict[str, bytes] = {}

    def requests(self, warmups: Sequence[Any], serving: ServingConfig) -> Warmup:
        """The requests, in the model's own shapes."""
        if serving.steps and warmups:
            self._findings.ignore(self._where, "model_warmup of an ensemble; its models have their own")
            return ()
        made = [(self._request(warmup, serving), warmup.count or 1) for warmup in warmups]
        return tuple((request, count) for request, count in made if request is not None)

    def _request(self, warmup: Any, serving: ServingConfig) -> tuple[Tensor, ...] | None:
        most = max(1, serving.max_batch_size)
        rows = warmup.batch_size if serving.max_batch_size else None
        try:
            _check_counts(warmup, most)
            request = tuple(self._tensor(name, given, rows) for name, given in sorted(warmup.inputs.items()))
            if serving.inputs:  # else the model itself says, when it has loaded
                required = [spec for spec in serving.inputs if spec.name not in serving.optional]
                optional = [spec for spec in serving.inputs if spec.name in serving.optional]
                check_inputs(self._name, serving, request, required, optional=optional)
            return to_model(serving, request)
        except InvalidInputError as error:
            self._findings.refuse(self._where, f"model_warmup {warmup.name!r}: {error}", error.hint)
            return None

    def _tensor(self, name: str, given: Any, rows: int | None) -> Tensor:
        datatype, shape = datatype_of(given), shape_of(given.dims, wildcard=False)
        if datatype is None or shape is None:
            raise InvalidInputError(f"input {name!r}: data_type, and dims of 1 or more, are needed")
        if math.prod(shape) * (rows or 1) * (datatype.itemsize or _BYTES_COST) > self._most_bytes:
            raise InvalidInputError(f"input {name!r} has more than {self._most_bytes} bytes")
        one = self._one_row(TensorSpec(name=name, datatype=datatype, shape=shape), given)
        if rows is None:
            return one
        data = np.ascontiguousarray(np.broadcast_to(one.data, (rows, *shape)))
        return Tensor(name=name, datatype=datatype, shape=data.shape, data=data)

    def _one_row(self, spec: TensorSpec, given: Any) -> Tensor:
        kind = given.WhichOneof("input_data_type")
        if kind == "input_data_file":
            return self._from_file(spec, given.input_data_file)
        if kind is None:
            raise InvalidInputError(f"input {spec.name!r}: zero_data, random_data or input_data_file is needed")
        data = _zeros(spec) if kind == "zero_data" else self._drawn(spec)
        return Tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape, data=data)

    def _from_file(self, spec: TensorSpec, file: str) -> Tensor:
        raw = self._folder.read(file, self._most_bytes)
        if raw is None:
            raise InvalidInputError(f"input {spec.name!r}: its input_data_file cannot be used")
        self.files[f"{WARMUP_FOLDER}/{file}"] = raw
        return decode_tensor(raw, name=spec.name, datatype=spec.datatype, shape=spec.shape)

    def _drawn(self, spec: TensorSpec) -> Array:
        if spec.datatype is Datatype.BYTES:
            return np.full(spec.shape, _TEXT, dtype=object)
        if spec.datatype is Datatype.BF16:
            return narrow_to_bf16(self._random.random(spec.shape, dtype=np.float32))
        if spec.datatype.numpy.kind == "f":
            return np.asarray(self._random.random(spec.shape)).astype(spec.datatype.numpy)
        return np.asarray(self._random.integers(0, 2, spec.shape)).astype(spec.datatype.numpy)


def _check_counts(warmup: Any, most: int) -> None:
    if not 1 <= warmup.batch_size <= most or warmup.count > MAX_COUNT:
        raise InvalidInputError(f"batch_size is from 1 to {most}, and count at most {MAX_COUNT}")


def _zeros(spec: TensorSpec) -> Array:
    if spec.datatype is Datatype.BYTES:
        return np.full(spec.shape, b"", dtype=object)
    return np.zeros(spec.shape, dtype=spec.datatype.numpy)
