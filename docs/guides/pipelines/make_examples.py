"""Makes the models and files of docs/guides/pipelines.md: toys that have learnt nothing, with the faces of real ones.

python make_examples.py
"""  # noqa: INP001  # a reader's program, in no package

from __future__ import annotations

import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import PIL.Image
import pydicom
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WORDS = {"love": 3.0, "good": 2.0, "privacy": 1.0, "bad": -2.0, "hate": -3.0, "i": 0.0, "ai": 0.0, "and": 0.0, "!": 0.0}
LETTERS = ("<pad>", "|", "H", "E", "L", "O")
VOICED = (2, 3, 4, 0, 4, 5)  # H E L – L O, a sample each


def save(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[str | int]]],
    output: tuple[str, Sequence[str | int]],
    *,
    constants: Mapping[str, np.ndarray],
) -> None:
    """A model of these nodes."""
    takes = [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in inputs.items()]
    gives = [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])]
    tensors = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    graph = helper.make_graph(nodes, "toy", takes, gives, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), name)


def sentiment() -> None:
    """The sum of what its words are worth, with a DistilBERT's inputs and output; and its vocabulary."""
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    Path("vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    worth = [WORDS.get(token, 0.0) for token in tokens]
    nodes = [
        helper.make_node("Gather", ["worth", "input_ids"], ["each"]),
        helper.make_node("Cast", ["attention_mask"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["counts", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["logits"], keepdims=0),
    ]
    constants = {
        "worth": np.array([[-value / 2, value / 2] for value in worth], np.float32),
        "last": np.array([2]),
        "tokens": np.array([1]),
    }
    face = (TensorProto.INT64, ["n", "t"])
    save(
        "sentiment.onnx", nodes, {"input_ids": face, "attention_mask": face}, ("logits", ["n", 2]), constants=constants
    )


def xray() -> None:
    """Brighter pictures are negative; with COVID-Net's input."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["output"]),
    ]
    face = (TensorProto.FLOAT, ["n", 480, 480, 3])
    weights = {"weights": np.array([[2, 0], [2, 0], [2, 0]], np.float32)}
    save("xray.onnx", nodes, {"input": face}, ("output", ["n", 2]), constants=weights)


def detector() -> None:
    """Sees a lamp wherever a piece of 64 × 64 pixels is bright; with YOLOv5's input and output."""
    middles = np.arange(32, 640, 64, dtype=np.float32)
    across, down = np.meshgrid(middles, middles)
    boxes = np.stack([across, down, np.full_like(across, 64), np.full_like(across, 64)], axis=-1)
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pieces"], kernel_shape=[64, 64], strides=[64, 64]),
        helper.make_node("ReduceMean", ["pieces"], ["bright"], axes=[1], keepdims=0),
        helper.make_node("Reshape", ["bright", "column"], ["sure"]),
        helper.make_node("Mul", ["sure", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "boxes"], ["where"]),
        helper.make_node("Sub", ["one", "sure"], ["dark"]),
        helper.make_node("Concat", ["where", "sure", "sure", "dark"], ["output0"], axis=2),
    ]
    constants = {
        "column": np.array([0, 100, 1]),
        "nothing": np.zeros((1, 1, 4), np.float32),
        "one": np.ones((1, 1, 1), np.float32),
        "boxes": boxes.reshape(1, 100, 4),
    }
    images = {"images": (TensorProto.FLOAT, ["n", 3, 640, 640])}
    save("detector.onnx", nodes, images, ("output0", ["n", 100, 7]), constants=constants)


def speech() -> None:
    """Each sample is a letter, by how loud it is beside the others; with wav2vec2's input and output."""
    centres = (np.arange(len(LETTERS)) - np.mean(VOICED)) / np.std(VOICED)
    nodes = [
        helper.make_node("Unsqueeze", ["input_values", "last"], ["each"]),
        helper.make_node("Sub", ["each", "centres"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["far"]),
        helper.make_node("Neg", ["far"], ["logits"]),
    ]
    constants = {"last": np.array([2]), "centres": centres.astype(np.float32)}
    samples = {"input_values": (TensorProto.FLOAT, ["n", "t"])}
    save("speech.onnx", nodes, samples, ("logits", ["n", "t", len(LETTERS)]), constants=constants)


def files() -> None:
    """A text, a picture with a lamp in it, a scan and a recording."""
    Path("review.txt").write_text("I love AI and privacy!\n", "utf-8")
    picture = PIL.Image.new("RGB", (320, 240), (20, 30, 60))
    picture.paste((255, 250, 230), (128, 88, 160, 120))
    picture.save("x.jpg", quality=95)
    scan = pydicom.Dataset()
    scan.file_meta = pydicom.dataset.FileMetaDataset()
    scan.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    scan.SOPClassUID, scan.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    scan.PatientName, scan.PhotometricInterpretation = "Nobody", "MONOCHROME2"
    scan.Rows, scan.Columns, scan.SamplesPerPixel = 64, 64, 1
    scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 16, 12, 11, 0
    scan.PixelData = (np.arange(64 * 64, dtype="<u2") % 4096).tobytes()
    scan.save_as("scan.dcm", enforce_file_format=True)
    with wave.open("hello.wav", "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(np.array([round(letter * 0.1 * 32768) for letter in VOICED], "<i2").tobytes())


if __name__ == "__main__":
    for make in (sentiment, xray, detector, speech, files):
        make()
