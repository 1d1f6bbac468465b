"""What comes out of a detector: boxes with labels and scores, on the picture that was sent.

The model's output is YOLOv5's: for each candidate the x and y of its middle, its width and height, in pixels of the
picture that the model sees, how sure it is that something is there, and a share for each label. Neighbours show the
same thing; of those the likeliest stays (greedy non-maximum suppression, for each label by itself).
Bounded: 30,000 candidates of a row are looked at, and each is compared with the boxes that are answered and with those
of its own block, in pieces of a few megabytes, whatever the model says.
Leaves out: other forms of output, and boxes that are turned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blindai.errors import InternalError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blindai.oip.datatypes import Array
    from blindai.pipeline.declaration import Boxes
    from blindai.pipeline.frames import Frame

MAX_CANDIDATES = 30_000  # of a row, the likeliest; YOLOv5s on 640 × 640 has 25,200
_BEFORE_LABELS = 5
_BLOCK = 256  # candidates that are compared at once


class BoxAnswer:
    """`boxes` FP32 [rows, most, 4], `labels` BYTES and `scores` FP32 [rows, most], the likeliest first.

    `most` is the number of boxes in the row that has most; others are filled with zeros and empty labels.
    """

    def __init__(self, declared: Boxes) -> None:
        self._declared = declared
        self._labels = np.array([*(label.encode() for label in declared.labels), b""], dtype=object)
        self.of = declared.of
        self.rank = 3
        self.outputs = (
            TensorSpec(name="boxes", datatype=Datatype.FP32, shape=(-1, -1, 4)),
            TensorSpec(name="labels", datatype=Datatype.BYTES, shape=(-1, -1)),
            TensorSpec(name="scores", datatype=Datatype.FP32, shape=(-1, -1)),
        )

    def give(self, outputs: Mapping[str, Array], frames: Sequence[Frame]) -> tuple[Tensor, ...]:
        """The three tensors.

        Raises:
            InternalError: the model has another number of labels, or does not answer each picture.
        """
        raw = outputs[self.of]
        if raw.ndim != self.rank or raw.shape[2] != _BEFORE_LABELS + len(self._declared.labels):
            raise InternalError("the model answers another number of labels than its pipeline names")
        if raw.shape[0] != len(frames):
            raise InternalError("the model does not answer each picture")
        rows = [self._found(row, frame) for row, frame in zip(raw, frames, strict=True)]
        most = max(scores.size for _, _, scores in rows)
        boxes = np.zeros((len(rows), most, 4), np.float32)
        labels = np.full((len(rows), most), -1)  # the empty one
        scores = np.zeros((len(rows), most), np.float32)
        for index, (box, label, score) in enumerate(rows):
            boxes[index, : score.size], labels[index, : score.size], scores[index, : score.size] = box, label, score
        arrays = (boxes, self._labels[labels], scores)
        return tuple(
            Tensor(name=spec.name, datatype=spec.datatype, shape=array.shape, data=array)
            for spec, array in zip(self.outputs, arrays, strict=True)
        )

    def _found(self, candidates: Array, frame: Frame) -> tuple[Array, Array, Array]:
        """A picture's boxes, the numbers of their labels, and their scores; the likeliest first."""
        declared = self._declared
        candidates = candidates[np.isfinite(candidates).all(axis=1)]
        labels = candidates[:, _BEFORE_LABELS:].argmax(axis=1)
        with np.errstate(over="ignore"):  # of a model that answers no shares; an infinite score is none
            scores = candidates[:, 4] * candidates[np.arange(labels.size), _BEFORE_LABELS + labels]
        corners = _corners(candidates[:, :4].astype(np.float64), frame)
        seen = np.clip(corners, 0, [frame.width, frame.height] * 2)
        counts = np.isfinite(scores) & (scores >= np.float32(declared.threshold)) & (seen[:, :2] < seen[:, 2:]).all(1)
        order = np.flatnonzero(counts)
        order = order[np.argsort(-scores[order], kind="stable")][:MAX_CANDIDATES]
        kept = order[_apart(corners[order], labels[order], declared.overlap, declared.top)]
        return seen[kept], labels[kept], scores[kept]


def _corners(centred: Array, frame: Frame) -> Array:
    """Left, top, right and bottom on the picture, of middles and sizes in the window."""
    middle, half = centred[:, :2], centred[:, 2:] / 2
    step, start = (frame.across, frame.down) * 2, (frame.left, frame.top) * 2
    return np.asarray(np.hstack((middle - half, middle + half)) * step + start)


def _apart(boxes: Array, labels: Array, overlap: float, top: int) -> Array:
    """Which of the boxes, likeliest first, share at most `overlap` with each likelier one of their label."""
    kept = np.empty(0, np.intp)
    for start in range(0, len(boxes), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes)))
        block = block[~_alike(boxes, labels, block, kept, overlap=overlap).any(axis=1)]
        alike, stays = _alike(boxes, labels, block, block, overlap=overlap), np.ones(block.size, bool)
        for index in range(block.size):
            if stays[index]:
                stays[index + 1 :] &= ~alike[index, index + 1 :]
        kept = np.concatenate((kept, block[stays]))
        if kept.size >= top:
            break
    return kept[:top]


def _alike(boxes: Array, labels: Array, ones: Array, others: Array, *, overlap: float) -> Array:
    """Which of these show the same thing as which of the others, [ones, others]."""
    left, top, right, bottom = (side[:, np.newaxis] for side in boxes[ones].T)
    others_left, others_top, others_right, others_bottom = boxes[others].T
    wide = np.minimum(right, others_right) - np.maximum(left, others_left)
    high = np.minimum(bottom, others_bottom) - np.maximum(top, others_top)
    shared = np.maximum(wide, 0) * np.maximum(high, 0)
    areas = (right - left) * (bottom - top) + (others_right - others_left) * (others_bottom - others_top)
    return np.asarray((shared > overlap * (areas - shared)) & (labels[ones, np.newaxis] == labels[others]))
