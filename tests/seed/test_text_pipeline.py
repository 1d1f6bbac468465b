"""A DistilBERT with its pipeline answers raw text as transformers does with its own tokenizer and torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pipeline.small_models import VOCABULARY, vocabulary

from blindai import pipeline
from blindai.oip.tensors import tensor_from
from blindai.server.piped_engine import PipedEngine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.seed, pytest.mark.filterwarnings("ignore")]
TEXTS = ("I love AI and privacy!", "", "naïve 中文 😀 [SEP] Σ", "no " * 100, "İstanbul\0\u2028")


def test_raw_text_gets_what_transformers_answers(tmp_path: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(7)
    sizes = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
    names = {0: "calm", 1: "glad", 2: "sad"}
    config = transformers.DistilBertConfig(
        vocab_size=len(VOCABULARY), max_position_embeddings=64, id2label=names, **sizes
    )
    model = transformers.DistilBertForSequenceClassification(config).eval()
    tokenizer = transformers.DistilBertTokenizer(str(vocabulary(tmp_path)), model_max_length=64)
    fed = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.softmax(model(**fed).logits, dim=-1).numpy()
    path = tmp_path / "m.onnx"
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        model,
        (fed["input_ids"], fed["attention_mask"]),
        str(path),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
        dynamo=False,
    )
    beside = pipeline.save(
        path,
        input=pipeline.text(tokenizer, inputs=["input_ids", "attention_mask"]),
        output=pipeline.labels(config.id2label),
    )
    engine = PipedEngine()
    engine.load({"m.onnx": path.read_bytes(), beside.name: beside.read_bytes()}, rows_wanted=True)
    labels, scores = engine.run((tensor_from(list(TEXTS), name="text"),), ())
    assert not engine.rows_independent
    order = np.argsort(-expected, axis=1)
    assert labels.data.tolist() == [[names[index].encode() for index in row] for row in order.tolist()]
    assert np.abs(scores.data - np.take_along_axis(expected, order, axis=1)).max() < 1e-5
