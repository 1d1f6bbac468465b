"""Rules for operators that choose elements or put some beside them: slices, look-ups, padding.

A rule answers with the node's outputs, or raises `RowsMixedError`.
Leaves out: everything else (row_rules.py, row_layers.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.oip.datatypes import MAX_RANK
from blindai.server import row_sizes
from blindai.server.row_steps import RowsMixedError, replaced
from blindai.server.row_values import BATCH, ONE, Kind, Shape, Size, Value, joined, mixed, shared

if TYPE_CHECKING:
    from blindai.server.row_steps import Step

_TO_THE_END = 2**31 - 1  # from here on, an end of a slice means "all"


def gather(step: Step) -> Value:
    """Gather: rows look up a shared table, shared indices choose inside each row, or each row looks into itself."""
    if sizes := row_sizes.gathered_sizes(step):
        return sizes
    data, indices = step.needed(0), step.needed(1)
    if data.shape is None or indices.shape is None:
        return shared() if step.all_shared else mixed()
    axis = step.axis(0, len(data.shape))
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    if step.all_shared:
        return shared(shape)
    looks_up = data.shared and axis == 0 and indices.kind is Kind.JOINED
    chooses = data.rows and axis > 0 and indices.shared
    return joined(shape) if looks_up or chooses or (axis == 0 and _stays_inside(step, data, indices)) else mixed(shape)


def _stays_inside(step: Step, data: Value, indices: Value) -> bool:
    """Whether each index lies among those that flattening made of its own row."""
    if indices.stride is None or not indices.shape or indices.shape[0] != BATCH or not data.rows:
        return False
    per_row = indices.stride
    return data.rows[0] == step.symbols.product([BATCH, per_row]) and indices.span in {ONE, per_row}


def gather_elements(step: Step) -> Value:
    """GatherElements, each row by its own indices."""
    if step.all_shared:
        return shared(step.needed(1).shape)
    data, indices = step.rows(0), step.rows(1)
    step.inner_axis(0, len(data))
    if len(data) != len(indices) or data[0] != indices[0]:
        raise RowsMixedError
    return joined(indices)


def gather_nd(step: Step) -> Value:
    """GatherND: indices that are rows into a shared table, or ones that begin with the number of their row."""
    if step.all_shared:
        return shared()
    data, indices = step.needed(0), step.needed(1)
    if data.shape is None or indices.shape is None or len(indices.shape) < 2:  # noqa: PLR2004  # rows, and a tuple
        raise RowsMixedError
    batch_dims, depth = int(step.attributes.get("batch_dims", 0)), indices.shape[-1].literal
    if depth is None or not 0 < depth + batch_dims <= len(data.shape):
        raise RowsMixedError
    looks_up = batch_dims == 0 and data.shared and indices.rows
    side_by_side = batch_dims > 0 and data.rows and indices.rows and data.rows[0] == indices.rows[0]
    numbered = batch_dims == 0 and indices.leads_with_row and data.rows and data.rows[0] == BATCH
    if not (looks_up or side_by_side or numbered):
        raise RowsMixedError
    return joined((*indices.shape[:-1], *data.shape[batch_dims + depth :]))


def array_feature_extractor(step: Step) -> Value:
    """ArrayFeatureExtractor: features of each row, or labels looked up in a shared list."""
    if step.all_shared:
        return shared()
    data, indices = step.needed(0), step.needed(1)
    if data.shape is None or indices.shape is None:
        raise RowsMixedError
    count = step.symbols.product(indices.shape)
    if indices.shared:
        return joined((step.rows(0, ranks=range(2, 3))[0], count))
    if data.shared and indices.kind is Kind.JOINED and len(data.shape) in {1, 2} and data.shape[:-1] in {(), (ONE,)}:
        return joined((ONE, count))
    raise RowsMixedError


def split(step: Step) -> tuple[Value, ...]:
    """Split, but not along the batch."""
    if step.all_shared:
        return (shared(),) * step.outputs
    shape = step.rows(0)
    axis = step.inner_axis(0, len(shape))
    step.require_shared(1)
    sizes = step.numbers("split", 1)
    total = shape[axis].literal
    if sizes is None and total is not None and total % step.outputs == 0:
        sizes = (total // step.outputs,) * step.outputs
    parts = [step.symbols.fresh() for _ in range(step.outputs)] if sizes is None else [Size(size) for size in sizes]
    if len(parts) != step.outputs:
        raise RowsMixedError
    return tuple(joined(replaced(shape, axis, part)) for part in parts)


def cut(step: Step) -> Value:
    """Slice, but not along the batch, unless it takes all of it."""
    if sizes := _sliced_sizes(step):
        return sizes
    if step.all_shared:
        shape = step.needed(0).shape
        return shared(None if shape is None else _sliced(step, shape))
    shape = step.rows(0)
    step.require_shared(1, 2, 3, 4)
    return joined(_sliced(step, shape))


def _sliced_sizes(step: Step) -> Value | None:
    try:
        return row_sizes.sliced_sizes(step)
    except RowsMixedError:
        return None  # its bounds are known at run time only


def _sliced(step: Step, shape: Shape) -> Shape:
    axes = step.numbers("axes", 3)
    bounds = [_bounds(step, name, place) for name, place in (("starts", 1), ("ends", 2), ("steps", 4))]
    if axes is None:
        count = next((len(bound) for bound in bounds if bound is not None), None)
        if count is None:
            raise RowsMixedError
        axes = tuple(range(count))
    for place, axis in enumerate(axes):
        at = [None if bound is None else bound[place] for bound in bounds]
        counted = step.place(axis, len(shape))
        if _takes_all(*at):
            continue
        if shape[counted].varies:
            raise RowsMixedError
        shape = replaced(shape, counted, _cut_size(step, shape[counted].literal, at))
    return shape


def _takes_all(start: int | None, end: int | None, stride: int | None) -> bool:
    return start == 0 and end is not None and end >= _TO_THE_END and (stride or 1) == 1


def _cut_size(step: Step, total: int | None, bounds: list[int | None]) -> Size:
    start, end, stride = bounds
    if total is None or start is None or end is None or stride == 0:
        return step.symbols.fresh()
    return Size(len(range(total)[start : end : stride or 1]))


def _bounds(step: Step, attribute: str, place: int) -> tuple[int, ...] | None:
    try:
        return step.numbers(attribute, place)
    except RowsMixedError:
        return None  # known at run time only


def pad(step: Step) -> Value:
    """Pad, but not along the batch."""
    if step.all_shared:
        return shared()
    shape = step.rows(0)
    step.require_shared(1, 2, 3)
    pads, axes = step.numbers("pads", 1), step.numbers("axes", 3)
    if pads is None:
        raise RowsMixedError
    places = list(range(len(shape))) if axes is None else [step.place(axis, len(shape)) for axis in axes]
    if len(pads) != 2 * len(places):
        raise RowsMixedError
    for place, before, after in zip(places, pads, pads[len(places) :], strict=False):
        if place == 0 and (before or after):
            raise RowsMixedError
        total = shape[place].literal
        padded = step.symbols.fresh() if total is None else Size(total + before + after)
        shape = shape if place == 0 else replaced(shape, place, padded)
    return joined(shape)


def trilu(step: Step) -> Value:
    """Trilu on the last two axes."""
    if step.all_shared:
        return shared(step.needed(0).shape)
    step.require_shared(1)
    return joined(step.rows(0, ranks=range(3, MAX_RANK + 1)))


def one_hot(step: Step) -> Value:
    """OneHot, with the new axis anywhere but in front."""
    if step.all_shared:
        return shared()
    shape = step.rows(0)
    step.require_shared(1, 2)
    axis = step.inner_axis(-1, len(shape) + 1)
    depth = step.needed(1).elements
    size = depth[0] if depth else step.symbols.fresh()
    return joined((*shape[:axis], size, *shape[axis:]))
