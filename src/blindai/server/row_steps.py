"""One node of a graph, as the rules of row_rules.py and row_layers.py see it.

Leaves out: the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.server.row_values import ONE, Shape, Size, Symbols, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RowsMixedError(Exception):
    """No rule shows that this node keeps rows apart; never leaves the analysis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A node with what is known of its inputs.

    Attributes:
        operator: its type.
        version: of its domain's operator set.
        attributes: by name, as Python values.
        inputs: `None` where an optional one is left out.
        outputs: how many outputs it names.
        symbols: makes sizes.
    """

    operator: str
    version: int
    attributes: Mapping[str, Any]
    inputs: Sequence[Value | None]
    outputs: int
    symbols: Symbols

    def input(self, place: int) -> Value | None:
        """An input that may be left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def needed(self, place: int) -> Value:
        """An input that must be there."""
        value = self.input(place)
        if value is None:
            raise RowsMixedError
        return value

    def rows(self, place: int, *, ranks: range | None = None) -> Shape:
        """The shape of an input, along whose first axis requests are joined."""
        shape = self.needed(place).rows
        if shape is None or (ranks is not None and len(shape) not in ranks):
            raise RowsMixedError
        return shape

    def require_shared(self, *places: int) -> None:
        """These inputs, where given, are the same in every request."""
        if any(value is not None and not value.shared for value in map(self.input, places)):
            raise RowsMixedError

    @property
    def all_shared(self) -> bool:
        """Whether no input depends on a request or on how many were joined."""
        return all(value is None or value.shared for value in self.inputs)

    def axis(self, default: int, rank: int) -> int:
        """The attribute `axis`, counted from the front."""
        return self.place(int(self.attributes.get("axis", default)), rank)

    def inner_axis(self, default: int, rank: int) -> int:
        """The attribute `axis`, which must not be the batch."""
        axis = self.axis(default, rank)
        if axis == 0:
            raise RowsMixedError
        return axis

    def place(self, axis: int, rank: int) -> int:
        """An axis, counted from the front."""
        counted = axis + rank if axis < 0 else axis
        if not 0 <= counted < rank:
            raise RowsMixedError
        return counted

    def numbers(self, attribute: str, place: int) -> tuple[int, ...] | None:
        """Whole numbers that older operator sets take as an attribute and newer ones as an input; `None` if absent."""
        if attribute in self.attributes:
            return tuple(int(number) for number in self.attributes[attribute])
        value = self.input(place)
        if value is None:
            return None
        if value.literals is None:
            raise RowsMixedError
        return value.literals


def replaced(shape: Shape, axis: int, size: Size) -> Shape:
    """A shape with another size on one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def stays_off_the_batch(value: Value, rank: int) -> bool:
    """Whether a shared tensor, broadcast to `rank` axes, says the same to every row."""
    if not value.shared or value.shape is None:
        return False
    return len(value.shape) < rank or (len(value.shape) == rank and value.shape[0] == ONE)
