"""What comes out of a pipeline: labels with scores, or the text of a speech model.

Leaves out: boxes (`detections`).
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from blindai.errors import InternalError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.oip.datatypes import Array
    from blindai.pipeline.declaration import Labels, Transcript


class LabelAnswer:
    """`labels` BYTES and `scores` FP32, both [rows, top], the likeliest first; of equals the model's first."""

    def __init__(self, declared: Labels) -> None:
        self._declared = declared
        self._labels = np.array([label.encode() for label in declared.labels], dtype=object)
        shape = (-1, declared.top)
        self.of = declared.of
        self.rank = 2
        self.outputs = (
            TensorSpec(name="labels", datatype=Datatype.BYTES, shape=shape),
            TensorSpec(name="scores", datatype=Datatype.FP32, shape=shape),
        )

    def give(self, outputs: Mapping[str, Array]) -> tuple[Tensor, ...]:
        """Both tensors.

        Raises:
            InternalError: the model has another number of labels.
        """
        raw = outputs[self.of]
        if raw.ndim != self.rank or raw.shape[1] != len(self._labels):
            raise InternalError("the model answers another number of labels than its pipeline names")
        scores = _activated(raw.astype(np.float32), self._declared.activation)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._declared.top]
        return (
            _tensor("labels", Datatype.BYTES, self._labels[order]),
            _tensor("scores", Datatype.FP32, np.take_along_axis(scores, order, axis=1)),
        )


class TextAnswer:
    """`text` BYTES [rows], by CTC's greedy decoding."""

    def __init__(self, declared: Transcript) -> None:
        self._tokens = declared.vocabulary
        self._silent = {declared.vocabulary.index(token) for token in (declared.blank, *declared.silent)}
        self._space = declared.space
        self.of = declared.of
        self.rank = 3
        self.outputs = (TensorSpec(name="text", datatype=Datatype.BYTES, shape=(-1,)),)

    def give(self, outputs: Mapping[str, Array]) -> tuple[Tensor, ...]:
        """The one tensor.

        Raises:
            InternalError: the model has another number of tokens.
        """
        raw = outputs[self.of]
        if raw.ndim != self.rank or raw.shape[2] != len(self._tokens):
            raise InternalError("the model answers another number of tokens than its pipeline names")
        texts = np.empty(raw.shape[0], dtype=object)
        texts[:] = [self._text(row.tolist()) for row in raw.argmax(axis=2)]
        return (_tensor("text", Datatype.BYTES, texts),)

    def _text(self, steps: list[int]) -> bytes:
        kept = (token for token, _ in groupby(steps) if token not in self._silent)
        words = (" " if self._tokens[token] == self._space else self._tokens[token] for token in kept)
        return "".join(words).strip().encode()


def _activated(scores: Array, activation: str) -> Array:
    if activation == "softmax":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    if activation == "sigmoid":
        with np.errstate(over="ignore"):  # e^x of a large x is infinite, and its share 0
            return np.asarray(np.float32(1) / (np.float32(1) + np.exp(-scores)))
    return scores


def _tensor(name: str, datatype: Datatype, array: Array) -> Tensor:
    data = np.ascontiguousarray(array).reshape(array.shape)
    return Tensor(name=name, datatype=datatype, shape=array.shape, data=data)
