"""A child process in `.seed-venv`: writes DistilBERT with its real architecture and seeded weights to one ONNX file.

.seed-venv/bin/python bench/export_distilbert.py OUT.onnx
"""

from __future__ import annotations

import sys

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification


class Logits(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
    """One output, a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.model = DistilBertForSequenceClassification(DistilBertConfig(attn_implementation="eager")).eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """As the tokenizer's two arrays are given."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


torch.manual_seed(2022)
tokens = torch.ones(2, 8, dtype=torch.int64)
torch.onnx.export(
    Logits(),
    (tokens, tokens),
    sys.argv[1],
    input_names=["input_ids", "attention_mask"],
    output_names=["logits"],
    dynamic_axes={
        "input_ids": {0: "batch", 1: "tokens"},
        "attention_mask": {0: "batch", 1: "tokens"},
        "logits": {0: "batch"},
    },
    opset_version=17,
    dynamo=False,
)
