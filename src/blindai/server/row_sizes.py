"""Rules for operators on shapes: which whole numbers a tensor holds, as sizes in symbols.

An exporter computes the target of a reshape from the shapes of other tensors; followed here, `[batch, seq, 2, 16]` is
seen to keep the batch in front.
Leaves out: what becomes of rows (row_rules.py, row_layers.py), which these rules hand over to by `None`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blindai.server.row_values import BATCH, ONE, Shape, Size, Value, mixed, shared, whole_numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.server.row_steps import Step

_MAX_ELEMENTS = 64
_ZERO = Size(0)
_INT32, _INT64 = 6, 7  # onnx.TensorProto


def shape_of(step: Step) -> Value:
    """Shape: opset 15 can take a part of it."""
    value = step.needed(0)
    if value.shape is None:
        return shared() if value.shared else mixed()
    start, end = step.attributes.get("start", 0), step.attributes.get("end", len(value.shape))
    sizes = value.shape[start:end]
    return whole_numbers(sizes, (Size(len(sizes)),))


def size_of(step: Step) -> Value:
    """Size."""
    shape = step.needed(0).shape
    return mixed(()) if shape is None else whole_numbers((step.symbols.product(shape),), ())


def number_range(step: Step) -> Value:
    """Range: from 0 in steps of 1 it counts an axis, and up to the number of rows it numbers them."""
    start, limit, delta = (step.needed(place).elements for place in range(3))
    counts = (start, delta) == ((_ZERO,), (ONE,)) and limit is not None
    if counts and limit == (BATCH,):
        return replace(mixed((BATCH,)), stride=ONE)
    if not step.all_shared:
        return mixed()
    if counts and limit is not None and (limit[0].symbols or limit[0].factor >= 0):
        return shared(limit, below=limit[0])
    return shared((step.symbols.fresh(),))


def gathered_sizes(step: Step) -> Value | None:
    """Gather on known whole numbers."""
    data, indices = step.needed(0), step.needed(1)
    if data.elements is None or data.rank != 1 or indices.literals is None or indices.shape is None:
        return None
    count = len(data.elements)
    if any(not -count <= index < count for index in indices.literals):
        return None
    return whole_numbers(tuple(data.elements[index] for index in indices.literals), indices.shape)


def sliced_sizes(step: Step) -> Value | None:
    """Slice on known whole numbers."""
    data = step.needed(0)
    starts, ends = step.numbers("starts", 1), step.numbers("ends", 2)
    steps = step.numbers("steps", 4) or (1,)
    if data.elements is None or data.rank != 1 or starts is None or ends is None or steps[0] == 0:
        return None
    chosen = data.elements[starts[0] : ends[0] : steps[0]]
    return whole_numbers(chosen, (Size(len(chosen)),))


def concatenated_sizes(step: Step) -> Value | None:
    """Concat of known whole numbers."""
    elements: Shape = ()
    for value in step.inputs:
        if value is None or value.rank != 1 or value.elements is None:
            return None
        elements += value.elements
    if len(elements) > _MAX_ELEMENTS:
        return None
    return whole_numbers(elements, (Size(len(elements)),))


def cast_sizes(step: Step) -> Value | None:
    """Cast of known whole numbers to a type that holds them."""
    value = step.needed(0)
    followed = value.elements is not None or value.below is not None or value.stride is not None
    return value if followed and step.attributes.get("to") in {_INT32, _INT64} else None


def reshaped_sizes(step: Step) -> Value | None:
    """Reshape, Squeeze and Unsqueeze of known whole numbers, to rank 0 or 1."""
    value = step.needed(0)
    if value.elements is None:
        return None
    count = len(value.elements)
    if step.operator == "Reshape":
        target = step.needed(1).literals
        rank = -1 if target is None or target not in {(), (-1,), (count,)} else len(target)
    else:
        axes = step.numbers("axes", 1)
        axis = 1 if axes is None else len(axes)
        rank = value.rank + (axis if step.operator == "Unsqueeze" else -axis)
    if rank not in {0, 1} or (rank == 0 and count != 1):
        return None
    return whole_numbers(value.elements, (Size(count),) * rank)


def filled(step: Step) -> Value | None:
    """ConstantOfShape of a short list of whole numbers."""
    target, fill = step.needed(0).literals, step.attributes.get("value", 0.0)
    if target is None or len(target) > 1 or not isinstance(fill, int):
        return None
    count = target[0] if target else 1
    if not 0 <= count <= _MAX_ELEMENTS:
        return None
    return whole_numbers((Size(fill),) * count, tuple(map(Size, target)))


def combined_sizes(step: Step) -> Value | None:
    """Add, Sub, Mul, Div, Equal and Where on known whole numbers, element by element."""
    combine = _COMBINE[step.operator]
    known = [value.elements for value in step.inputs if value is not None and value.elements is not None]
    if len(known) != len(step.inputs):
        return None
    counts = {len(elements) for elements in known} - {1}
    if len(counts) > 1:
        return None
    count = counts.pop() if counts else 1
    columns = zip(*(elements * count if len(elements) == 1 else elements for elements in known), strict=True)
    results = [combine(step, column) for column in columns]
    rank = max(value.rank for value in step.inputs if value is not None)
    if rank not in {0, 1} or any(result is None for result in results):
        return None
    return whole_numbers(tuple(result for result in results if result is not None), (Size(count),) * rank)


def _multiply(step: Step, sizes: Shape) -> Size | None:
    return step.symbols.product(sizes)


def _divide(step: Step, sizes: Shape) -> Size | None:
    total, part = sizes
    if total.signed or part.signed or not part.factor:
        return None  # ONNX rounds towards zero
    if not total.symbols and not part.symbols:
        return Size(total.factor // part.factor)
    return step.symbols.opaque("divided", total, part)


def _add(step: Step, sizes: Shape) -> Size | None:
    if all(not size.symbols for size in sizes):
        return Size(sum(size.factor for size in sizes))
    return step.symbols.opaque("sum", *sizes)


def _subtract(step: Step, sizes: Shape) -> Size | None:
    one, other = sizes
    return _add(step, (one, Size(-other.factor, other.symbols)))


def _equal(_step: Step, sizes: Shape) -> Size | None:
    one, other = sizes
    if one == other or (not one.symbols and not other.symbols):
        return Size(int(one == other))
    # A size is never negative, so that a negative number is none; -1 asks "is this axis left open?".
    number, size = (one, other) if not one.symbols else (other, one)
    return _ZERO if not number.symbols and number.factor < 0 and not size.signed else None


def _choose(_step: Step, sizes: Shape) -> Size | None:
    condition, one, other = sizes
    if one == other:
        return one
    if condition.symbols:
        return None
    return one if condition.factor else other


_COMBINE: dict[str, Callable[[Step, Shape], Size | None]] = {
    "Mul": _multiply,
    "Div": _divide,
    "Add": _add,
    "Sub": _subtract,
    "Equal": _equal,
    "Where": _choose,
}
