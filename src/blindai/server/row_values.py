"""What is known of a tensor while row_independence.py reads a graph: its shape in symbols, and what became of the rows.

A run over joined requests and the runs of each request alone are compared. A size is a number times symbols: one for
the batch, one for every other dynamic axis of an input (equal in all joined requests), and opaque ones for whatever is
computed from them. Nothing is ever evaluated on data.
Leaves out: what each operator does (row_rules.py, row_layers.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_BATCH = "#"  # also the first character of every opaque symbol that varies with the batch
_SIGNED = "-"  # the last character of every opaque symbol that may be negative
_MAX_SYMBOLS = 8
_MAX_FACTOR = 2**63


@dataclass(frozen=True, slots=True)
class Size:
    """A whole number: `factor` times the product of `symbols`."""

    factor: int
    symbols: tuple[str, ...] = ()

    @property
    def literal(self) -> int | None:
        """The number itself, where no symbol is in it."""
        return None if self.symbols else self.factor

    @property
    def varies(self) -> bool:
        """Whether it depends on how many rows were joined."""
        return any(symbol.startswith(_BATCH) for symbol in self.symbols)

    @property
    def signed(self) -> bool:
        """Whether it may be negative."""
        return self.factor < 0 or any(symbol.endswith(_SIGNED) for symbol in self.symbols)

    @property
    def linear(self) -> bool:
        """Whether it is the number of rows times something that does not depend on it."""
        return (
            not self.signed
            and self.factor > 0
            and [symbol for symbol in self.symbols if symbol.startswith(_BATCH)] == [_BATCH]
        )


BATCH = Size(1, (_BATCH,))
ONE = Size(1)
Shape = tuple[Size, ...]


class Symbols:
    """Makes sizes out of sizes; the same computation of the same sizes is the same symbol."""

    def __init__(self) -> None:
        self._names: dict[tuple[object, ...], str] = {}

    def opaque(self, *made_of: object) -> Size:
        """A size about which nothing is known but what it was made of."""
        sizes = [part for part in made_of if isinstance(part, Size)]
        varies, signed = (any(getattr(size, fact) for size in sizes) for fact in ("varies", "signed"))
        name = f"{_BATCH if varies else ''}{len(self._names)}{_SIGNED if signed else ''}"
        return Size(1, (self._names.setdefault(made_of, name),))

    def fresh(self) -> Size:
        """A size that does not vary with the batch, and of which nothing else is known."""
        return self.opaque("fresh", len(self._names))

    def product(self, sizes: Iterable[Size]) -> Size:
        """All of them multiplied."""
        result = ONE
        for size in sizes:
            factor, symbols = result.factor * size.factor, tuple(sorted(result.symbols + size.symbols))
            too_long = len(symbols) > _MAX_SYMBOLS or abs(factor) >= _MAX_FACTOR
            result = self.opaque("product", result, size) if too_long else Size(factor, symbols)
        return result

    def quotient(self, total: Size, part: Size) -> Size:
        """The size that times `part` makes `total`, the batch kept in sight where it is in the first alone."""
        above, below = list(total.symbols), list(part.symbols)
        for symbol in part.symbols:
            if symbol in above:
                above.remove(symbol)
                below.remove(symbol)
        if not below and part.factor and total.factor % part.factor == 0:
            return Size(total.factor // part.factor, tuple(above))
        rest = Size(part.factor, tuple(below))
        if above.count(_BATCH) == 1 and not rest.varies:
            above.remove(_BATCH)
            return self.product([BATCH, self.opaque("quotient", Size(total.factor, tuple(above)), rest)])
        return self.opaque("quotient", Size(total.factor, tuple(above)), rest)

    def broadcast(self, shapes: Iterable[Shape]) -> Shape:
        """The shape that numpy's rules give."""
        result: Shape = ()
        for shape in shapes:
            rank = max(len(result), len(shape))
            left, right = (((ONE,) * (rank - len(side)) + side) for side in (result, shape))
            result = tuple(self._wider(one, other) for one, other in zip(left, right, strict=True))
        return result

    def _wider(self, one: Size, other: Size) -> Size:
        if ONE in (one, other):
            return other if one == ONE else one
        first, second = sorted((one, other), key=repr)
        return one if one == other else self.opaque("broadcast", first, second)


class Kind(enum.Enum):
    """What becomes of a tensor when requests are joined."""

    SHARED = enum.auto()  # the same as in every request alone
    JOINED = enum.auto()  # its elements in memory are those of the requests alone, one request after another
    MIXED = enum.auto()  # anything else


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One tensor.

    Attributes:
        kind: what becomes of it.
        shape: its sizes, or `None` if even the rank is unknown; right for every kind.
        elements: its whole numbers, where it has rank 0 or 1 and they are known.
        below: all its elements are whole numbers from 0 up to, and without, this.
        stride: the elements of row `r` are `stride · r + rest`, where `rest` is as in the request alone;
            from 0 up to, and without, `span`.
        span: see `stride`.
        leads_with_row: along its last axis, the first element is the number of the row.
        culprit: the operator that mixed the rows, or empty.
    """

    kind: Kind
    shape: Shape | None = None
    elements: Shape | None = None
    below: Size | None = None
    stride: Size | None = None
    span: Size = ONE
    leads_with_row: bool = False
    culprit: str = ""

    @property
    def shared(self) -> bool:
        """The same as in every request alone."""
        return self.kind is Kind.SHARED

    @property
    def rank(self) -> int:
        """Number of axes; -1 if unknown."""
        return -1 if self.shape is None else len(self.shape)

    @property
    def rows(self) -> Shape | None:
        """The shape, if joining requests joins this tensor along its first axis."""
        if self.kind is Kind.JOINED and self.shape and self.shape[0].linear:
            return self.shape
        return None

    @property
    def single(self) -> bool:
        """One element, the same in every request."""
        return self.shared and self.shape is not None and all(size == ONE for size in self.shape)

    @property
    def literals(self) -> tuple[int, ...] | None:
        """Its elements, if they are known as numbers."""
        if self.elements is None or any(size.symbols for size in self.elements):
            return None
        return tuple(size.factor for size in self.elements)


def joins_in_memory(shape: Shape) -> bool:
    """Whether tensors of this shape lie one after another when joined: the batch is the first axis that is not 1."""
    outer = next((place for place, size in enumerate(shape) if size != ONE), None)
    return outer is not None and shape[outer].linear and not any(size.varies for size in shape[outer + 1 :])


def shared(shape: Shape | None = None, *, below: Size | None = None) -> Value:
    """A tensor that is the same in every request."""
    return Value(kind=Kind.SHARED, shape=shape, below=below)


def mixed(shape: Shape | None = None) -> Value:
    """A tensor that joining may change."""
    return Value(kind=Kind.MIXED, shape=shape)


def joined(shape: Shape) -> Value:
    """A tensor that joining joins, if its shape allows it."""
    return Value(kind=Kind.JOINED if joins_in_memory(shape) else Kind.MIXED, shape=shape)


def whole_numbers(elements: Shape, shape: Shape) -> Value:
    """A tensor of known whole numbers."""
    kind = Kind.MIXED if any(size.varies for size in (*elements, *shape)) else Kind.SHARED
    return Value(kind=kind, shape=shape, elements=elements)
