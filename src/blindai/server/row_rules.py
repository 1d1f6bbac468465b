"""Rules for operators that compute element by element, or that move elements: what becomes of the rows.

A rule answers with the node's outputs, or raises `RowsMixedError`.
Operator sets 7 and newer; who looks a rule up is row_independence.py.
Leaves out: operators that choose or add elements (row_choices.py); layers, reductions and trees (row_layers.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blindai.server import row_sizes
from blindai.server.row_steps import RowsMixedError, replaced, stays_off_the_batch
from blindai.server.row_values import (
    BATCH,
    ONE,
    Kind,
    Shape,
    Size,
    Value,
    joined,
    joins_in_memory,
    mixed,
    shared,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.server.row_steps import Step


def elementwise(step: Step) -> Value:
    """One input, one output, each element by itself; further inputs are parameters of every element."""
    value = step.needed(0)
    if any(other is not None and not other.single for other in step.inputs[1:]):
        raise RowsMixedError
    return Value(kind=value.kind, shape=value.shape)


def cast(step: Step) -> Value:
    """Cast; CastLike's second input gives its type only."""
    value = step.needed(0)
    return row_sizes.cast_sizes(step) or Value(kind=value.kind, shape=value.shape)


def identity(step: Step) -> Value:
    """The input itself."""
    return step.needed(0)


def dropout(step: Step) -> tuple[Value, ...]:
    """Dropout, where it does nothing: outside of training."""
    training = step.input(2)
    if training is not None and training.literals != (0,):
        raise RowsMixedError
    value = step.needed(0)
    return (value, Value(kind=value.kind, shape=value.shape))


def broadcast(step: Step) -> Value:
    """Element by element over several inputs, with numpy's broadcasting."""
    values = [value for value in step.inputs if value is not None]
    if any(value.shape is None for value in values):
        return shared() if step.all_shared else mixed()
    shape = step.symbols.broadcast([value.shape for value in values if value.shape is not None])
    if step.all_shared:
        return shared(shape)
    if all(_fits(value, shape) for value in values) and joins_in_memory(shape):
        return joined(shape)
    return mixed(shape)


def _fits(value: Value, shape: Shape) -> bool:
    """Whether broadcasting to `shape` leaves each row beside its own."""
    if value.shared:
        return value.single or (shape[0].linear and stays_off_the_batch(value, len(shape)))
    if value.kind is not Kind.JOINED or value.shape is None:
        return False
    return value.shape == shape or (len(value.shape) == len(shape) and value.shape[0] == shape[0] and shape[0].linear)


def arithmetic(step: Step) -> Value:
    """Broadcasting operators that also compute sizes, and numbers of rows."""
    return row_sizes.combined_sizes(step) or _numbered(step) or broadcast(step)


def _numbered(step: Step) -> Value | None:
    """`row · n`, and `row · n + rest`: where a row begins in flattened rows, and a place inside it."""
    if step.operator not in {"Mul", "Add"}:
        return None
    one, other = step.needed(0), step.needed(1)
    numbers, by = (one, other) if one.stride is not None else (other, one)
    if numbers.stride is None or numbers.span != ONE or numbers.shape is None or by.shape is None or not by.shared:
        return None
    shape = step.symbols.broadcast([numbers.shape, by.shape])
    if len(shape) != numbers.rank or shape[0] != BATCH or not stays_off_the_batch(by, len(shape)):
        return None
    if step.operator == "Add":
        return None if by.below is None else replace(mixed(shape), stride=numbers.stride, span=by.below)
    if by.elements is None or len(by.elements) != 1 or by.elements[0].signed:
        return None
    return replace(mixed(shape), stride=step.symbols.product([numbers.stride, *by.elements]))


def _laid_out(value: Value, shape: Shape) -> Value:
    """The same elements in memory, in another shape."""
    if value.shared:
        varies = any(size.varies for size in shape)
        return mixed(shape) if varies else shared(shape, below=value.below)
    if value.kind is Kind.JOINED:
        return joined(shape)
    keeps_rows = value.shape and shape and value.shape[0] == shape[0] == BATCH
    return replace(mixed(shape), stride=value.stride if keeps_rows else None, span=value.span)


def reshape(step: Step) -> Value:
    """Reshape: rows stay rows when the batch stays in front and nothing else varies with it."""
    if sizes := row_sizes.reshaped_sizes(step):
        return sizes
    value, target = step.needed(0), step.needed(1).elements
    if value.shape is None or target is None:
        if step.all_shared:
            return shared()
        raise RowsMixedError
    return _laid_out(value, _target_shape(step, value.shape, target))


def _target_shape(step: Step, shape: Shape, target: Shape) -> Shape:
    copy_zeros = not step.attributes.get("allowzero", 0)
    sizes: list[Size | None] = []
    for place, size in enumerate(target):
        if size.literal == 0 and copy_zeros and place < len(shape):
            sizes.append(shape[place])
        elif size.literal == -1:
            sizes.append(None)
        elif size.signed or not size.factor:
            raise RowsMixedError
        else:
            sizes.append(size)
    known = [size for size in sizes if size is not None]
    if len(sizes) - len(known) > 1:
        raise RowsMixedError
    open_axis = step.symbols.quotient(step.symbols.product(shape), step.symbols.product(known))
    return tuple(open_axis if size is None else size for size in sizes)


def flatten(step: Step) -> Value:
    """Flatten to two axes."""
    value = step.needed(0)
    if value.shape is None:
        return shared() if value.shared else mixed()
    rank = len(value.shape)
    axis = int(step.attributes.get("axis", 1))
    axis = axis + rank if axis < 0 else axis
    return _laid_out(value, (step.symbols.product(value.shape[:axis]), step.symbols.product(value.shape[axis:])))


def squeeze(step: Step) -> Value:
    """Squeeze; without axes only where every size is a number, since a batch of one row would lose its axis."""
    if sizes := row_sizes.reshaped_sizes(step):
        return sizes
    value, axes = step.needed(0), step.numbers("axes", 1)
    if value.shape is None:
        return shared() if step.all_shared else mixed()
    if axes is None:
        if any(size.literal is None for size in value.shape):
            raise RowsMixedError
        axes = tuple(place for place, size in enumerate(value.shape) if size == ONE)
    gone = {step.place(axis, len(value.shape)) for axis in axes}
    if any(value.shape[place].varies for place in gone):
        raise RowsMixedError
    return _laid_out(value, tuple(size for place, size in enumerate(value.shape) if place not in gone))


def unsqueeze(step: Step) -> Value:
    """Unsqueeze."""
    if sizes := row_sizes.reshaped_sizes(step):
        return sizes
    value, axes = step.needed(0), step.numbers("axes", 1)
    if value.shape is None or axes is None:
        return shared() if step.all_shared else mixed()
    rank = len(value.shape) + len(axes)
    new = {step.place(axis, rank) for axis in axes}
    old = iter(value.shape)
    return _laid_out(value, tuple(ONE if place in new else next(old) for place in range(rank)))


def transpose(step: Step) -> Value:
    """Transpose that leaves the first axis in front."""
    value = step.needed(0)
    if value.shape is None:
        return shared() if value.shared else mixed()
    order = tuple(step.attributes.get("perm", range(len(value.shape) - 1, -1, -1)))
    if sorted(order) != list(range(len(value.shape))):
        raise RowsMixedError
    shape = tuple(value.shape[axis] for axis in order)
    if value.shared:
        return shared(shape, below=value.below)
    return joined(shape) if value.rows and order[0] == 0 else mixed(shape)


def expand(step: Step) -> Value:
    """Expand: a shared tensor expanded to the batch is the same row for everybody."""
    value, target = step.needed(0), step.needed(1).elements
    if value.shape is None or target is None or any(size.signed or not size.factor for size in target):
        return shared() if step.all_shared else mixed()
    shape = step.symbols.broadcast([value.shape, target])
    if value.shared and not any(size.varies for size in shape):
        return shared(shape, below=value.below)
    in_place = len(value.shape) == len(shape) and value.shape[0] == shape[0]
    if stays_off_the_batch(value, len(shape)) or (value.rows and in_place):
        return joined(shape) if shape[0].linear else mixed(shape)
    return replace(mixed(shape), stride=value.stride if in_place else None, span=value.span)


def tile(step: Step) -> Value:
    """Tile, but not along the batch."""
    repeats = step.needed(1).elements
    if step.all_shared:
        return shared()
    shape = step.rows(0)
    if repeats is None or len(repeats) != len(shape) or repeats[0] != ONE or any(one.signed for one in repeats):
        raise RowsMixedError
    return joined(tuple(step.symbols.product(pair) for pair in zip(shape, repeats, strict=True)))


def filled(step: Step) -> Value:
    """ConstantOfShape."""
    target = step.needed(0).elements
    if sizes := row_sizes.filled(step):
        return sizes
    if target is None or any(size.signed for size in target):
        return shared() if step.all_shared else mixed()
    return joined(target) if any(size.varies for size in target) else shared(target)


def where(step: Step) -> Value:
    """Where."""
    return row_sizes.combined_sizes(step) or broadcast(step)


def concat(step: Step) -> Value:
    """Concat, but not along the batch; along the last axis it makes indices out of numbers of rows."""
    if sizes := row_sizes.concatenated_sizes(step):
        return sizes
    if step.all_shared:
        return shared(_concatenated(step))
    shape = _concatenated(step)
    if shape is None:
        raise RowsMixedError
    axis = step.inner_axis(0, len(shape))
    if all(value is not None and value.rows and value.rows[0] == shape[0] for value in step.inputs):
        return joined(shape)
    first, *others = step.inputs
    return replace(mixed(shape), leads_with_row=axis == len(shape) - 1 and _are_indices(first, others))


def _concatenated(step: Step) -> Shape | None:
    shapes = [value.shape for value in step.inputs if value is not None]
    first = shapes[0] if shapes else None
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return None
    axis = step.axis(0, len(first))
    sizes = [shape[axis] for shape in shapes if shape is not None]
    if all(size.literal is not None for size in sizes):
        return replaced(first, axis, Size(sum(size.factor for size in sizes)))
    return replaced(first, axis, step.symbols.opaque("concatenated", *sizes))


def _are_indices(first: Value | None, others: Sequence[Value | None]) -> bool:
    """Whether the first holds just the numbers of the rows, and the others are rows beside them."""
    if first is None or (first.stride, first.span) != (ONE, ONE) or first.shape is None or first.shape[-1] != ONE:
        return False
    return all(other is not None and other.rows and other.rows[0] == BATCH for other in others)
