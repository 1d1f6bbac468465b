"""Small models with pipelines: a BERT-like one for text, a mean of pixels, and one that spells sound."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from blindai import pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LETTERS = string.ascii_lowercase
VOCABULARY = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS),
    *".,!?'\"-+$<>^`|~", "love", "ai", "privacy", "##ing", "中", "文", "##é", "😀", "σ", "##σ",
)  # fmt: skip
WIDTH = 4
_RANDOM = np.random.default_rng(7)
EMBEDDING = _RANDOM.normal(size=(len(VOCABULARY), WIDTH)).astype(np.float32)
CLASSIFIER = _RANDOM.normal(size=(WIDTH, 2)).astype(np.float32)
LABELS = ("negative", "positive")


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[str | int]]],
    output: tuple[str, Sequence[str | int]],
    *,
    constants: Mapping[str, np.ndarray] | None = None,
) -> Path:
    takes = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    gives = [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])]
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", takes, gives, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", "utf-8")
    return path


def sentiment(path: Path) -> Path:
    """Logits of the mean embedding of the tokens that count, as a DistilBERT's inputs and outputs."""
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["counts", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["wide", "tokens"], ["number"], keepdims=0),
        helper.make_node("Div", ["sum", "number"], ["mean"]),
        helper.make_node("MatMul", ["mean", "classifier"], ["logits"]),
    ]
    constants = {"embedding": EMBEDDING, "classifier": CLASSIFIER, "last": np.array([2]), "tokens": np.array([1])}
    face = (TensorProto.INT64, ["n", "t"])
    save(path, nodes, {"input_ids": face, "attention_mask": face}, ("logits", ["n", 2]), constants=constants)
    pipeline.save(path, input=pipeline.text(vocabulary(path.parent)), output=pipeline.labels(LABELS))
    return path


def probabilities(ids: Sequence[int]) -> np.ndarray:
    """What `sentiment` answers for a text's numbers, in the order of LABELS."""
    logits = EMBEDDING[list(ids)].mean(axis=0) @ CLASSIFIER
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def brightness(path: Path, *steps: pipeline.Step, max_pixels: int = 1_000_000) -> Path:
    """The mean of each colour, between 0 and 1."""
    nodes = [helper.make_node("ReduceMean", ["pixels"], ["logits"], axes=[2, 3], keepdims=0)]
    save(path, nodes, {"pixels": (TensorProto.FLOAT, ["n", 3, "h", "w"])}, ("logits", ["n", 3]))
    recipe = pipeline.picture(
        "pixels", steps=steps or (pipeline.ResizeShorter(size=8), pipeline.CentreSquare()), max_pixels=max_pixels
    )
    pipeline.save(path, input=recipe, output=pipeline.labels(["red", "green", "blue"], activation="none"))
    return path


SOUND_TOKENS = ("<pad>", "|", "a", "b")


def speller(path: Path) -> Path:
    """Each sample is a step: below −½ a blank, below 0 the end of a word, below ½ an a, else a b."""
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "last"], ["each"]),
        helper.make_node("Sub", ["each", "centres"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["far"]),
        helper.make_node("Neg", ["far"], ["logits"]),
    ]
    constants = {"last": np.array([2]), "centres": np.array([-0.75, -0.25, 0.25, 0.75], np.float32)}
    samples = {"samples": (TensorProto.FLOAT, ["n", "t"])}
    save(path, nodes, samples, ("logits", ["n", "t", len(SOUND_TOKENS)]), constants=constants)
    pipeline.save(path, input=pipeline.sound("samples", rate=8000), output=pipeline.transcript(SOUND_TOKENS))
    return path


THINGS = ("cat", "dog", "door")


def detector(path: Path, candidates: np.ndarray, *steps: pipeline.Step, **how: object) -> Path:
    """Answers these candidates [candidates, 5 + 3], YOLOv5's form, whatever it sees, for each row."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["seen"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["seen", "last"], ["flat"]),
        helper.make_node("Mul", ["flat", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "candidates"], ["output0"]),
    ]
    constants = {
        "last": np.array([3]),
        "zero": np.zeros(1, np.float32),
        "candidates": candidates.astype(np.float32)[np.newaxis],
    }
    save(
        path,
        nodes,
        {"pixels": (TensorProto.FLOAT, ["n", 3, "h", "w"])},
        ("output0", ["n", "candidates", 8]),
        constants=constants,
    )
    recipe = pipeline.picture("pixels", steps=steps or (pipeline.Letterbox(width=64, height=64),))
    pipeline.save(path, input=recipe, output=pipeline.boxes(THINGS, **how))  # type: ignore[arg-type]
    return path
