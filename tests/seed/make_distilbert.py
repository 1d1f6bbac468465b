"""A child process: puts a small DistilBERT into ./distilbert-base-uncased, where `from_pretrained` looks first.

The seeded weights are 2.5 times as wide as DistilBERT's own start, so that sentences differ in the digits compared;
at ten times, float32 rounding alone sets ONNX Runtime and torch 3e-6 apart.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] ! . ? , i we you they love hate sell ai data models and or not privacy money"

folder = Path("distilbert-base-uncased")
vocabulary = WORDS.split()
torch.manual_seed(2022)
DistilBertForSequenceClassification(
    DistilBertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=32,
        dim=64,
        hidden_dim=128,
        n_layers=2,
        n_heads=4,
        initializer_range=0.05,
    )
).save_pretrained(folder)
(folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")
(folder / "tokenizer_config.json").write_text(
    json.dumps({"tokenizer_class": "DistilBertTokenizer", "do_lower_case": True, "model_max_length": 32}),
    encoding="utf-8",
)
