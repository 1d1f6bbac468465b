"""Rules for layers, reductions, and quantisation with fixed scales.

A rule answers with the node's outputs, or raises `RowsMixedError`.
Operators that compute ranges, means or orders over the batch have no rule, DynamicQuantizeLinear first among them.
Leaves out: everything else (row_rules.py, row_choices.py, row_tables.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.oip.datatypes import MAX_RANK
from blindai.server.row_steps import RowsMixedError, replaced, stays_off_the_batch
from blindai.server.row_values import ONE, Shape, Size, Value, joined, shared

if TYPE_CHECKING:
    from blindai.server.row_steps import Step

_LAYER = range(3, MAX_RANK + 1)
_TABLE = range(2, 3)
_SOFTMAX_OF_ONE_AXIS = 13  # the operator set from which Softmax flattens nothing


def matmul(step: Step) -> Value:
    """MatMul; QLinearMatMul and MatMulInteger with scales and zero points of their own, fixed."""
    left, right = _factors(step)
    if left.shared and right.shared:
        return shared()
    if left.shape is None or right.shape is None:
        raise RowsMixedError
    rank = max(len(left.shape), len(right.shape))
    if rank == 2 and left.rows and right.shared and len(left.shape) == rank:  # noqa: PLR2004  # a matrix
        return joined(_product_shape(step, left.shape, right.shape))
    for side in (left, right):
        vector = side.shared and side.rank == 1
        if not vector and not (stays_off_the_batch(side, rank) or (side.rows and len(side.rows) == rank)):
            raise RowsMixedError
    batches = {side.rows[0] for side in (left, right) if side.rows}
    if rank not in _LAYER or len(batches) != 1:
        raise RowsMixedError
    return joined(_product_shape(step, left.shape, right.shape))


def _factors(step: Step) -> tuple[Value, Value]:
    if step.operator == "QLinearMatMul":
        step.require_shared(1, 2, 4, 5, 6, 7)
        second, fixed = 3, [1, 2, 4, 5, 6, 7]
    else:
        second, fixed = 1, [2, 3]
    left, right = step.needed(0), step.needed(second)
    for place in fixed:
        value = step.input(place)
        if value is not None and not value.single and not (right.shared and value.shared and place >= second):
            raise RowsMixedError
    return left, right


def _product_shape(step: Step, left: Shape, right: Shape) -> Shape:
    outer = step.symbols.broadcast([left[:-2], right[:-2]])
    return (*outer, *(left[-2:-1] if len(left) > 1 else ()), *(right[-1:] if len(right) > 1 else ()))


def gemm(step: Step) -> Value:
    """Gemm with rows on the left."""
    if step.all_shared:
        return shared()
    rows, weights = step.rows(0, ranks=_TABLE), step.needed(1)
    addend = step.input(2)
    if (
        step.attributes.get("transA", 0)
        or not weights.shared
        or weights.shape is None
        or len(weights.shape) not in _TABLE
    ):
        raise RowsMixedError
    if addend is not None and not stays_off_the_batch(addend, 2) and not _same_rows(addend, rows):
        raise RowsMixedError
    return joined((rows[0], weights.shape[0 if step.attributes.get("transB", 0) else 1]))


def _same_rows(value: Value, rows: Shape) -> bool:
    return value.rows is not None and len(value.rows) == len(rows) and value.rows[0] == rows[0]


def convolution(step: Step) -> Value:
    """Conv, ConvTranspose, ConvInteger and QLinearConv with shared weights."""
    if step.all_shared:
        return shared()
    rows = step.rows(0, ranks=_LAYER)
    step.require_shared(*range(1, len(step.inputs)))
    weights = step.needed(3 if step.operator == "QLinearConv" else 1).shape
    if weights is None or len(weights) != len(rows):
        raise RowsMixedError
    if step.operator == "ConvTranspose":
        return joined((rows[0], *(step.symbols.fresh() for _ in rows[1:])))
    return joined((rows[0], weights[0], *_windows(step, rows[2:], [size.literal for size in weights[2:]])))


def pool(step: Step) -> tuple[Value, ...]:
    """AveragePool, LpPool and MaxPool; MaxPool's second output counts places through the whole batch."""
    if step.outputs > 1:
        raise RowsMixedError
    if step.all_shared:
        return (shared(),)
    rows = step.rows(0, ranks=_LAYER)
    return (joined((*rows[:2], *_windows(step, rows[2:], list(step.attributes.get("kernel_shape", ()))))),)


def _windows(step: Step, sizes: Shape, kernel: list[int | None]) -> Shape:
    """How often a window fits along each axis, where that is known."""
    count = len(sizes)
    ones = [1] * count
    strides, dilations = (list(step.attributes.get(name, ones)) for name in ("strides", "dilations"))
    pads = list(step.attributes.get("pads", [0] * (2 * count)))
    padding = step.attributes.get("auto_pad", b"NOTSET")
    plain = padding in {b"NOTSET", b"VALID"} and not step.attributes.get("ceil_mode", 0)
    if not plain or [len(kernel), len(strides), len(dilations), len(pads)] != [count, count, count, 2 * count]:
        return tuple(step.symbols.fresh() for _ in sizes)
    return tuple(
        _window_count(step, size.literal, kernel[axis], strides[axis], dilations[axis], pads[axis] + pads[axis + count])
        for axis, size in enumerate(sizes)
    )


def _window_count(step: Step, size: int | None, window: int | None, stride: int, dilation: int, padding: int) -> Size:  # noqa: PLR0917  # the formula's
    if size is None or window is None or stride < 1:
        return step.symbols.fresh()
    return Size(max((size + padding - dilation * (window - 1) - 1) // stride + 1, 0))


def global_pool(step: Step) -> Value:
    """GlobalAveragePool, GlobalMaxPool and GlobalLpPool."""
    if step.all_shared:
        return shared()
    rows = step.rows(0, ranks=_LAYER)
    return joined((*rows[:2], *(ONE for _ in rows[2:])))


def channel_layer(step: Step) -> Value:
    """Layers that keep the shape and the rows: LRN, InstanceNormalization, GroupNormalization."""
    if step.all_shared:
        return shared(step.needed(0).shape)
    step.require_shared(*range(1, len(step.inputs)))
    return joined(step.rows(0, ranks=_LAYER))


def batch_normalization(step: Step) -> tuple[Value, ...]:
    """BatchNormalization with means and variances from training."""
    if step.outputs > 1 or step.attributes.get("training_mode", 0) or not step.attributes.get("spatial", 1):
        raise RowsMixedError
    if step.all_shared:
        return (shared(step.needed(0).shape),)
    step.require_shared(1, 2, 3, 4)
    return (joined(step.rows(0, ranks=range(2, MAX_RANK + 1))),)


def layer_normalization(step: Step) -> tuple[Value, ...]:
    """LayerNormalization and RMSNormalization over axes behind the batch."""
    if step.all_shared:
        return (shared(step.needed(0).shape), *(shared(),) * (step.outputs - 1))
    rows = step.rows(0)
    axis = step.inner_axis(-1, len(rows))
    parameters = [value for value in step.inputs[1:] if value is not None]
    if not all(stays_off_the_batch(value, len(rows)) for value in parameters):
        raise RowsMixedError
    statistics = joined((*rows[:axis], *(ONE for _ in rows[axis:])))
    return (joined(rows), *(statistics,) * (step.outputs - 1))


def softmax(step: Step) -> Value:
    """Softmax, LogSoftmax, Hardmax; before operator set 13 over all axes from the named one on."""
    value = step.needed(0)
    if value.shared:
        return shared(value.shape)
    rows = step.rows(0)
    step.inner_axis(-1 if step.version >= _SOFTMAX_OF_ONE_AXIS else 1, len(rows))
    return joined(rows)


def inner_axis(step: Step) -> Value:
    """Operators over one axis, which must be named and not be the batch: LpNormalization."""
    if step.all_shared:
        return shared(step.needed(0).shape)
    rows = step.rows(0)
    step.inner_axis(-1, len(rows))
    return joined(rows)


def mean_variance(step: Step) -> Value:
    """MeanVarianceNormalization, whose default includes the batch."""
    rows = step.rows(0)
    if 0 in {step.place(axis, len(rows)) for axis in step.attributes.get("axes", (0,))}:
        raise RowsMixedError
    return joined(rows)


def cumulated(step: Step) -> Value:
    """CumSum behind the batch."""
    if step.all_shared:
        return shared(step.needed(0).shape)
    rows, axis = step.rows(0), step.needed(1).literals
    if axis is None or len(axis) != 1 or step.place(axis[0], len(rows)) == 0:
        raise RowsMixedError
    return joined(rows)


def reduce(step: Step) -> Value:
    """ReduceSum and its like, over named axes behind the batch."""
    if step.all_shared:
        return shared()
    rows = step.rows(0)
    axes = step.numbers("axes", 1)
    if not axes:
        if step.attributes.get("noop_with_empty_axes", 0):
            return joined(rows)
        raise RowsMixedError
    return _reduced(step, rows, {step.place(axis, len(rows)) for axis in axes})


def arg_extreme(step: Step) -> Value:
    """ArgMax and ArgMin behind the batch."""
    if step.all_shared:
        return shared()
    rows = step.rows(0)
    return _reduced(step, rows, {step.axis(0, len(rows))})


def _reduced(step: Step, rows: Shape, axes: set[int]) -> Value:
    if 0 in axes:
        raise RowsMixedError
    keep = step.attributes.get("keepdims", 1)
    return joined(tuple(ONE if axis in axes else size for axis, size in enumerate(rows) if keep or axis not in axes))


def top_k(step: Step) -> tuple[Value, ...]:
    """TopK behind the batch."""
    if step.all_shared:
        return (shared(),) * step.outputs
    rows = step.rows(0)
    step.require_shared(1)
    axis = step.inner_axis(-1, len(rows))
    found = joined(replaced(rows, axis, step.symbols.fresh()))
    return (found,) * step.outputs


def rearranged(step: Step) -> Value:
    """DepthToSpace and SpaceToDepth."""
    if step.all_shared:
        return shared()
    rows = step.rows(0, ranks=range(4, 5))
    return joined((rows[0], *(step.symbols.fresh() for _ in rows[1:])))


def quantize(step: Step) -> Value:
    """QuantizeLinear and DequantizeLinear with fixed scales, one for all or one for each place of an inner axis."""
    value = step.needed(0)
    if step.all_shared:
        return shared(value.shape)
    rows = step.rows(0)
    parameters = [value for value in step.inputs[1:] if value is not None]
    if not all(value.single for value in parameters):
        step.require_shared(1, 2)
        step.inner_axis(1, len(rows))
        if step.attributes.get("block_size", 0) or any(value.rank > 1 for value in parameters):
            raise RowsMixedError
    return joined(rows)
