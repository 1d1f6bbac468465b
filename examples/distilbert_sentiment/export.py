"""Writes DistilBERT, trained to tell good opinions from bad ones, as ONNX with its tokenizer: `python export.py`.

Into the current folder: sentiment.onnx with its data and pipeline, sample.txt, and expected.npz, what PyTorch answers.
`--random-weights` needs no download: the same configuration with seeded weights, which know nothing.
"""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from blindai import pipeline

PRETRAINED = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
INPUTS = ["input_ids", "attention_mask"]
TEXTS = [
    "I love AI and privacy!",
    "The waiting room was cold, and nobody told us anything.",
    "Déjà vu: the second visit was as bad as the first, but the nurse was wonderful.",
]


def main() -> None:
    """Fetch or make a checkpoint, load it as everybody does, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=PRETRAINED, help="a name on the hub, or a folder")
    parser.add_argument("--random-weights", action="store_true", help="download nothing")
    arguments = parser.parse_args()
    source = random_checkpoint(Path("random-weights")) if arguments.random_weights else arguments.model
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source).eval()
    export(model, tokenizer)
    labels = model.config.id2label
    pipeline.save("sentiment.onnx", input=pipeline.text(tokenizer, inputs=INPUTS), output=pipeline.labels(labels))
    Path("sample.txt").write_text("".join(f"{text}\n" for text in TEXTS), "utf-8")
    np.savez("expected.npz", **answers(model, tokenizer))


def random_checkpoint(folder: Path) -> Path:
    """The configuration of `PRETRAINED` with seeded weights, wide enough that texts differ, and letters for words."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(2019)
    config = DistilBertConfig(id2label={0: "NEGATIVE", 1: "POSITIVE"}, initializer_range=0.05)
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    signs = string.ascii_lowercase + string.digits + string.punctuation
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *(f"##{sign}" for sign in signs)]
    tokens += [f"[unused{number}]" for number in range(config.vocab_size - len(tokens))]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), "utf-8")
    settings = {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def export(model: Any, tokenizer: Any) -> None:
    """INT64 `input_ids` and `attention_mask` [batch, sequence] in, FP32 `logits` [batch, 2] out."""
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    torch.onnx.export(
        model,
        (),
        "sentiment.onnx",
        kwargs={name: tokens[name] for name in INPUTS},
        dynamo=True,
        input_names=INPUTS,
        output_names=["logits"],
        dynamic_shapes={name: {0: "batch", 1: "sequence"} for name in INPUTS},
    )


def answers(model: Any, tokenizer: Any) -> dict[str, np.ndarray[Any, Any]]:
    """PyTorch's own: for each text its labels and their scores, the likeliest first."""
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        scores, order = model(**{name: tokens[name] for name in INPUTS}).logits.softmax(-1).sort(descending=True)
    labels = [[model.config.id2label[number] for number in row] for row in order.tolist()]
    return {"labels": np.array(labels), "scores": scores.numpy()}


if __name__ == "__main__":
    main()
