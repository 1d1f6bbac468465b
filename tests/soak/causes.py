"""Which cause an error has, by the table that users read (docs/reference/errors.md); one that is not there is a bug."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ERRORS_PAGE = Path(__file__).parents[2] / "docs/reference/errors.md"
_COLUMNS = 6


class UnknownCauseError(Exception):
    """No row of the table fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One row.

    Attributes:
        code: of the error.
        statuses: HTTP's.
        grpc: the status's name, or empty.
        words: how the message reads, `…` for anything; empty fits all.
        cause: in words.
    """

    code: str
    statuses: tuple[int, ...]
    grpc: str
    words: str
    cause: str

    def fits(self, message: str) -> bool:
        """Whether it is about a message; what follows the words does not matter."""
        return re.match(".*".join(map(re.escape, self.words.split("…"))), message, re.DOTALL) is not None


@functools.cache
def causes() -> tuple[Cause, ...]:
    """All rows, those with words first within their code."""
    rows = [line.strip("|").split("|") for line in ERRORS_PAGE.read_text("utf-8").splitlines() if line[:3] == "| `"]
    assert all(len(row) == _COLUMNS for row in rows), "a row of errors.md has another number of columns"
    found = (tuple(cell.strip().strip("`") for cell in row) for row in rows)
    return tuple(
        Cause(code=code, statuses=tuple(int(number) for number in re.findall(r"\d+", status)), grpc=grpc, words=words,
              cause=cause)
        for code, status, grpc, words, cause, _ in found
    )  # fmt: skip


def cause_of(code: str, message: str) -> str:
    """The cause of an error.

    Raises:
        UnknownCauseError: the table does not know it.
    """
    return _found((row for row in causes() if row.code == code), code, message)


def cause_of_rpc(status: str, details: str) -> str:
    """The cause of an RPC's failure, which carries no code of ours.

    Raises:
        UnknownCauseError: the table does not know it.
    """
    rows = sorted((row for row in causes() if row.grpc == status), key=lambda row: not row.words)
    return _found(rows, status, details)


def _found(rows: Iterable[Cause], code: str, message: str) -> str:
    for row in rows:
        if row.fits(message):
            return f"{row.code}: {row.cause}"
    raise UnknownCauseError(f"{code}: {message}")
