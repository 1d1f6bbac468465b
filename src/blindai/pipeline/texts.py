"""Text as the tensors of a BERT: numbers of tokens, which of them count, and their segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from blindai.errors import InvalidInputError, TooLargeError
from blindai.oip.datatypes import Datatype
from blindai.pipeline.wordpiece import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.datatypes import Array
    from blindai.pipeline.declaration import WordPiece

NAME = "text"
MAX_TEXT_BYTES = 1024 * 1024


class Texts:
    """A declared tokenizer, made once."""

    name = NAME

    def __init__(self, declared: WordPiece) -> None:
        self._declared = declared
        self._tokenizer = Tokenizer(declared)
        self.feeds = tuple(
            (name, Datatype.INT64, 2) for name in (declared.ids, declared.mask, declared.types) if name is not None
        )

    def prepare(self, texts: Sequence[bytes]) -> dict[str, Array]:
        """The model's inputs, as long as the longest text.

        Raises:
            InvalidInputError: a text is not UTF-8.
            TooLargeError: a text has more than 1 MiB.
        """
        rows = [self._tokenizer.ids(_decoded(text)) for text in texts]
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self._tokenizer.pad, dtype="<i8")
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)], mask[index, : len(row)] = row, 1
        declared = self._declared
        feeds = ((declared.ids, ids), (declared.mask, mask), (declared.types, np.zeros_like(ids)))
        return {name: array for name, array in feeds if name is not None}


def _decoded(text: bytes) -> str:
    if len(text) > MAX_TEXT_BYTES:
        raise TooLargeError(f"a text has more than {MAX_TEXT_BYTES} bytes", hint="Send it in parts.")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInputError("a text is not UTF-8") from None
