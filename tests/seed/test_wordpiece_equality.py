"""The tokenizer of pipelines is that of transformers, on every code point that Unicode may use and on random text.

`python tests/seed/test_wordpiece_equality.py` writes what it answers to the file that tests/pipeline compares with.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.small_models import vocabulary

from blindai import pipeline
from blindai.pipeline.wordpiece import Tokenizer

pytestmark = pytest.mark.seed
VECTORS = Path(__file__).parents[1] / "pipeline" / "wordpiece_vectors.json"
SAMPLES = (
    "", " ", "\t\n\r", "I love AI and privacy!", "LOVING, loving; lové", "naïve café", "e\u0301", "Straße", "ΣΑΣ σς",
    "İstanbul", "中文 and 日本語", "한글", "😀😀 👩\u200d👧", "a\0b\ufffdc", "x\u00adx\u200bx\u2028x\u00a0x\u3000x",
    "$5+3=8^2", "[CLS] [SEP] [MASK] [sep]", "[SEP][SEP]a[PAD]", "a" * 100, "a" * 101, "don't stop—now…",
    "\u0301abc", "\x1c\x1d\x85", "\U000e0001\U0010fffd", "\ufb01 \u01c5 ß", "a" * 100_000, "b " * 600,
)  # fmt: skip


def theirs(folder: Path) -> Any:
    import transformers

    return transformers.BertTokenizer(str(vocabulary(folder)))


def random_texts(count: int) -> list[str]:
    chance = random.Random(7)  # noqa: S311  # the same text every time
    words = ["[SEP]", "[MASK]", "[sep]", " ", "love", "ing", "AI", "\n"]
    limits = (0x80, 0x500, 0x3000, 0xD800)
    return [
        "".join(
            chance.choice(words) if chance.random() < 0.2 else chr(chance.randrange(chance.choice(limits)))
            for _ in range(chance.randrange(60))
        )
        for _ in range(count)
    ]


def test_each_code_point_and_random_text_become_the_same_numbers(tmp_path: Path) -> None:
    library = theirs(tmp_path)
    ours = Tokenizer(pipeline.text(library))
    points = (*range(0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE0200), *range(0x10FFF0, 0x110000))
    texts = [*(f"a{chr(point)}b" for point in points), *random_texts(3000), *SAMPLES]
    expected = library(texts, truncation=True, max_length=512)["input_ids"]
    assert [text for text, ids in zip(texts, expected, strict=True) if ours.ids(text) != ids] == []


def test_the_written_vectors_are_the_librarys(tmp_path: Path) -> None:
    assert json.loads(VECTORS.read_text("utf-8")) == vectors(tmp_path)


def vectors(folder: Path) -> list[list[Any]]:
    library, texts = theirs(folder), [*SAMPLES[:-2], *random_texts(400)]
    return [
        [text, ids]
        for text, ids in zip(texts, library(texts, truncation=True, max_length=512)["input_ids"], strict=True)
    ]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        VECTORS.write_text("[\n" + ",\n".join(map(json.dumps, vectors(Path(made)))) + "\n]\n", "utf-8")
