"""BERT's WordPiece: text to numbers, exactly as Hugging Face's `BertTokenizerFast` does it.

    special tokens · clean · Chinese · accents · lower case · words, punctuation · longest pieces · cut · [CLS] … [SEP]

In Python, since a text is hostile input and this cannot read outside itself; of every step the cost is linear in the
text, for a word has at most `max_word` characters (docs/decisions/0009-pipelines.md).
Leaves out: padding, and what the model's inputs are called (`texts`).
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from blindai.pipeline.bert_characters import ACCENT, PUNCTUATION, WHITE_SPACE, is_control, is_ideograph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.pipeline.declaration import WordPiece

_CONTINUED = "##"
_SPACES = dict.fromkeys(map(ord, WHITE_SPACE), " ")
_BETWEEN_SPACES = re.compile("[^" + "".join(sorted(WHITE_SPACE)) + "]+")


class Tokenizer:
    """One declared vocabulary.

    Args:
        declared: what the bundle says; already checked.
    """

    def __init__(self, declared: WordPiece) -> None:
        self._declared = declared
        self._ids = {token: index for index, token in enumerate(declared.vocabulary)}
        self._unknown = self._ids[declared.unknown]
        self._longest = max(map(len, declared.vocabulary))
        longest_first = sorted(declared.specials, key=len, reverse=True)
        self._specials = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        self.pad = self._ids[declared.pad]

    def ids(self, text: str) -> list[int]:
        """The numbers of a text, with its first and last token; at most `max_tokens`."""
        declared, found = self._declared, list[int]()
        room = declared.max_tokens - 2
        for token in self._tokens(text):
            found.append(token)
            if len(found) == room:
                break
        return [self._ids[declared.first], *found, self._ids[declared.last]]

    def _tokens(self, text: str) -> Iterator[int]:
        """A special token written in the text is that token, as in the library."""
        parts = self._specials.split(text) if self._specials else [text]
        for index, part in enumerate(parts):
            if index % 2:
                yield self._ids[part]
            else:
                for word in _words(self._normal(part)):
                    yield from self._pieces(word)

    def _normal(self, text: str) -> str:
        declared = self._declared
        if declared.clean:
            text = "".join(character for character in text if character in "\t\n\r" or not is_control(character))
            text = text.translate(_SPACES)
        if declared.split_chinese and not text.isascii():
            text = "".join(f" {character} " if is_ideograph(character) else character for character in text)
        if declared.strip_accents and not text.isascii():
            text = "".join(character for character in unicodedata.normalize("NFD", text) if character not in ACCENT)
        if declared.lowercase:  # one by one: Python's own would end a Greek word in another sigma
            text = text.lower() if text.isascii() else "".join(map(str.lower, text))
        return text

    def _pieces(self, word: str) -> list[int]:
        """The longest known pieces from the left; a word that has none at some place is unknown as a whole."""
        if len(word) > self._declared.max_word:
            return [self._unknown]
        found, start = list[int](), 0
        while start < len(word):
            prefix = _CONTINUED if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = self._ids.get(prefix + word[start:end])
                if piece is not None:
                    break
            else:
                return [self._unknown]
            found.append(piece)
            start = end
        return found


def _words(text: str) -> Iterator[str]:
    """What stands between white space; each punctuation mark by itself."""
    for match in _BETWEEN_SPACES.finditer(text):
        chunk, start = match.group(), 0
        for index, character in enumerate(chunk):
            if character in PUNCTUATION:
                if start < index:
                    yield chunk[start:index]
                yield character
                start = index + 1
        if start < len(chunk):
            yield chunk[start:]
