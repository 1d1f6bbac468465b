"""What torch exports today is accepted for joining, and answers joined as it does alone.

DistilBERT and BERT with and without a mask, and a small ResNet, with random weights; both of torch's exporters.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.seed
AXES = {0: "batch", 1: "sequence"}


def text_model(kind: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(7)
    if kind == "distilbert":
        sizes = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
        config = transformers.DistilBertConfig(vocab_size=50, max_position_embeddings=32, **sizes)
        return transformers.DistilBertForSequenceClassification(config).eval()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=32, **sizes)
    return transformers.BertForSequenceClassification(config).eval()


def text(kind: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    import torch

    model = text_model(kind.partition(" ")[0])

    class Logits(torch.nn.Module):  # type: ignore[misc]  # torch says nothing of its types
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    example = {"input_ids": torch.randint(0, 50, (2, 8))}
    if "mask" in kind:
        example["attention_mask"] = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    return Logits().eval(), example, dict.fromkeys(example, AXES)


def residual() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    import torch
    from torch import nn

    torch.manual_seed(7)

    class Block(nn.Module):  # type: ignore[misc]  # as above
        def __init__(self, taken: int, given: int, stride: int) -> None:
            super().__init__()
            self.long = nn.Sequential(
                nn.Conv2d(taken, given, 3, stride, 1, bias=False), nn.BatchNorm2d(given), nn.ReLU(),
                nn.Conv2d(given, given, 3, 1, 1, bias=False), nn.BatchNorm2d(given),
            )  # fmt: skip
            self.short = nn.Sequential(nn.Conv2d(taken, given, 1, stride, bias=False), nn.BatchNorm2d(given))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.long(x) + self.short(x))

    start = [nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(16, 5)]
    model = nn.Sequential(*start, Block(8, 8, 1), Block(8, 16, 2), *end).eval()
    return model, {"input": torch.randn(2, 3, 32, 32)}, {"input": {0: "batch"}}


MODELS: dict[str, Callable[[], tuple[Any, dict[str, Any], dict[str, Any]]]] = {
    "resnet": residual,
    **{kind: functools.partial(text, kind) for kind in ("bert", "bert mask", "distilbert", "distilbert mask")},
}


def export(path: Path, name: str, *, dynamo: bool) -> dict[str, Any]:
    import torch

    model, example, axes = MODELS[name]()
    shapes: dict[str, Any] = {"dynamic_axes": {**axes, "output": {0: "batch"}}}
    if dynamo:
        sizes = {"batch": torch.export.Dim("batch", max=64), "sequence": torch.export.Dim("sequence", min=2, max=32)}
        shapes = {"dynamic_shapes": tuple({at: sizes[axis] for at, axis in one.items()} for one in axes.values())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own future
        torch.onnx.export(
            model, tuple(example.values()), str(path), input_names=list(example), output_names=["output"],
            dynamo=dynamo, **({"external_data": False} if dynamo else {}), **shapes,
        )  # fmt: skip
    return example


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_may_be_joined(name: str, dynamo: bool, tmp_path: Path) -> None:  # noqa: FBT001
    from blindai.server.row_independence import judge_rows

    path = tmp_path / "m.onnx"
    example = {key: value.numpy() for key, value in export(path, name, dynamo=dynamo).items()}
    assert judge_rows(onnx.load(path)).reason == ""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = [{key: value[at] for key, value in example.items()} for at in (slice(0, 1), slice(1, 2))]
    alone = np.concatenate([session.run(None, part)[0] for part in parts])
    np.testing.assert_allclose(session.run(None, example)[0], alone, rtol=1e-5, atol=1e-6)
