"""Learns words with Word2Vec from the documents that are to be found, and writes the search: `python export.py`.

The documents are the chapters of Python's reference that `help()` shows, since every reader has them (pydoc_data);
put your own into `documents()`. A text's place is the mean of its words', the rarer the heavier.
Into the current folder: search.onnx with its pipeline, sample.txt, and expected.npz, what gensim answers.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from gensim.models import Word2Vec

from blindai import pipeline

FLOOR = 0.70  # of paragraphs whose chapter is among the first five; guessing has 0.15
TOP = 5
HELD_OUT = 8  # one paragraph in so many
QUERIES = [
    "What happens when an exception is raised and nothing catches it?",
    "Set a breakpoint, and step through the code.",
    "import a module from a package",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

Array = np.ndarray[Any, Any]


def documents() -> dict[str, list[list[str]]]:
    """By title, the paragraphs as words."""
    split = {title: [words(part) for part in re.split(r"\n\s*\n", text)] for title, text in topics.items()}
    return {title: [part for part in parts if len(part) >= 12] for title, parts in split.items()}  # noqa: PLR2004  # a sentence


def words(text: str) -> list[str]:
    """As the pipeline's tokenizer separates them."""
    return re.findall(r"[a-z0-9]+", text.lower())


class Places:
    """Where texts lie among the words, by gensim."""

    def __init__(self, paragraphs: list[list[str]]) -> None:
        self.vectors = Word2Vec(
            paragraphs, vector_size=100, window=8, min_count=2, sg=1, epochs=12, seed=1, workers=1
        ).wv
        found_in = Counter(word for paragraph in paragraphs for word in set(paragraph))
        self.weights = {word: math.log(len(paragraphs) / found_in[word]) for word in self.vectors.index_to_key}

    def of(self, text: list[str]) -> Array:
        """A unit vector; zeros if no word is known."""
        known = [word for word in text if self.weights.get(word)]
        if not known:
            return np.zeros(self.vectors.vector_size, np.float32)
        weights = [self.weights[word] for word in known]
        place: Array = self.vectors.get_mean_vector(known, weights=weights, post_normalize=True)
        return place

    def ranked(self, text: list[str], titles: list[str], places: Array) -> list[tuple[str, float]]:
        """The nearest titles and their cosines."""
        cosines = self.vectors.cosine_similarities(self.of(text), places)
        return [(titles[number], float(cosines[number])) for number in np.argsort(-cosines)[:TOP]]


class Search(torch.nn.Module):
    """INT64 `input_ids` and `attention_mask` [batch, sequence] in, FP32 cosines [batch, documents] out."""

    def __init__(self, words: Places, places: Array) -> None:
        super().__init__()
        heavy = [words.vectors.get_vector(word, norm=True) * weight for word, weight in words.weights.items()]
        nothing = np.zeros((len(SPECIAL), words.vectors.vector_size))
        self.register_buffer("words", torch.tensor(np.concatenate([nothing, heavy]), dtype=torch.float32))
        self.register_buffer("places", torch.tensor(places.T, dtype=torch.float32))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The mean's length does not matter to a cosine, so the sum does."""
        vectors = torch.nn.functional.embedding(input_ids, self.words)
        summed = (vectors * attention_mask.unsqueeze(-1).float()).sum(1)
        return torch.nn.functional.normalize(summed, dim=1) @ self.places


def main() -> None:
    """Train on most paragraphs, search for the others, write."""
    parts = {title: found for title, found in documents().items() if len(found) >= HELD_OUT}
    seen = {title: [part for n, part in enumerate(found, 1) if n % HELD_OUT] for title, found in parts.items()}
    titles = list(parts)
    learnt = Places([part for found in seen.values() for part in found])
    places = np.stack([learnt.of([word for part in seen[title] for word in part]) for title in titles])
    held_out = [(title, part) for title, found in parts.items() for part in found[HELD_OUT - 1 :: HELD_OUT]]
    hits = sum(title in dict(learnt.ranked(part, titles, places)) for title, part in held_out)
    print(f"{len(titles)} documents, {len(learnt.weights)} words, {len(held_out)} paragraphs held out")
    print(f"held-out accuracy among five {hits / len(held_out):.3f} (floor {FLOOR:.3f})")
    if hits / len(held_out) < FLOOR:
        sys.exit("not good enough, and not written")
    write(learnt, titles, places)


def write(learnt: Places, titles: list[str], places: Array) -> None:
    """The model, its pipeline, the sample and what gensim says of it."""
    tokens = torch.ones(2, 6, dtype=torch.int64)
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        Search(learnt, places).eval(),
        (tokens, tokens.clone()),  # of one tensor given twice, torch makes one input
        "search.onnx",
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["cosines"],
        dynamic_shapes=(axes, axes),
    )
    Path("vocab.txt").write_text("".join(f"{word}\n" for word in (*SPECIAL, *learnt.weights)), "utf-8")
    answer = pipeline.labels(titles, of="cosines", activation="none", top=TOP)
    pipeline.save("search.onnx", input=pipeline.text("vocab.txt"), output=answer)
    Path("sample.txt").write_text("".join(f"{query}\n" for query in QUERIES), "utf-8")
    found = [learnt.ranked(words(query), titles, places) for query in QUERIES]
    labels, scores = np.array([[one[0] for one in row] for row in found]), [[one[1] for one in row] for row in found]
    np.savez("expected.npz", labels=labels, scores=np.array(scores))


if __name__ == "__main__":
    main()
