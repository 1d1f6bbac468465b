"""Text becomes the numbers that transformers makes of it (tests/seed/test_wordpiece_equality.py asks it for more)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from pipeline import small_models

from blindai import pipeline
from blindai.errors import InvalidInputError, TooLargeError
from blindai.pipeline.texts import MAX_TEXT_BYTES, Texts
from blindai.pipeline.wordpiece import Tokenizer

if TYPE_CHECKING:
    from blindai.pipeline.declaration import WordPiece

VECTORS = json.loads((Path(__file__).parent / "wordpiece_vectors.json").read_text("utf-8"))


@pytest.fixture(name="declared")
def _declared(tmp_path: Path) -> WordPiece:
    return pipeline.text(small_models.vocabulary(tmp_path))


def test_the_numbers_are_transformers(declared: WordPiece) -> None:
    tokenizer = Tokenizer(declared)
    assert len(VECTORS) > 400
    assert [text for text, ids in VECTORS if tokenizer.ids(text) != ids] == []


def test_a_long_text_is_cut_and_costs_little(declared: WordPiece) -> None:
    tokenizer, started = Tokenizer(declared), time.perf_counter()
    for text in ("a" * 100_000, "a " * 50_000, "😀" * 25_000, "[SEP]" * 20_000, "x" * MAX_TEXT_BYTES):
        assert len(tokenizer.ids(text)) <= 512
    assert time.perf_counter() - started < 20


def test_what_normalises_can_be_left_out(declared: WordPiece) -> None:
    plain = msgspec.structs.replace(
        declared, clean=False, lowercase=False, strip_accents=False, split_chinese=False, specials=()
    )
    tokenizer = Tokenizer(plain)
    words = [declared.vocabulary[index] for index in tokenizer.ids("love Love 中文 [SEP]")]
    assert words == ["[CLS]", "love", *["[UNK]"] * 5, "[SEP]"]


def test_rows_are_filled_up_to_the_longest(declared: WordPiece) -> None:
    feeds = Texts(msgspec.structs.replace(declared, types="token_type_ids")).prepare([b"love", b"", b"a b c"])
    assert feeds["input_ids"].shape == (3, 5)
    assert feeds["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert not np.any(feeds["token_type_ids"])
    assert feeds["input_ids"][1].tolist() == [2, 3, 0, 0, 0]


def test_text_is_utf8_and_has_an_end(declared: WordPiece) -> None:
    texts = Texts(declared)
    for broken in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"):
        with pytest.raises(InvalidInputError, match="UTF-8"):
            texts.prepare([broken])
    with pytest.raises(TooLargeError, match="bytes"):
        texts.prepare([b"a" * (MAX_TEXT_BYTES + 1)])
