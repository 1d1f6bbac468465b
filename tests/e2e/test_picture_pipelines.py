"""Pictures go in as files; broken, huge and hostile ones are refused, and the model answers on."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pipeline import small_models

import blindai
from blindai import pipeline
from blindai.errors import InferenceError, InternalError, InvalidInputError, InvalidModelError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.running_server import RunningServer

    from blindai import Client

image = pytest.importorskip("PIL.Image")  # the extra `pictures`
pytestmark = pytest.mark.network


def file(
    kind: str, size: tuple[int, int] = (20, 10), colour: tuple[int, int, int] = (255, 51, 0), **how: object
) -> bytes:
    out = io.BytesIO()
    image.new("RGB", size, colour).save(out, kind, **how)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    """A PNG of grey pixels that claims this size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = b"".join((head, *more, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body


def hostile() -> Iterator[tuple[str, bytes]]:
    jpeg, whole = file("JPEG", (64, 64)), file("PNG", (64, 64))
    yield from (("empty", b""), ("text", b"hello"), ("gif", file("GIF")), ("bmp", file("BMP")), ("tiff", file("TIFF")))
    yield from (("half a jpeg", jpeg[: len(jpeg) // 2]), ("half a png", whole[:60]), ("magic only", jpeg[:3]))
    yield "png that was changed", whole[:50] + bytes(byte ^ 0x55 for byte in whole[50:60]) + whole[60:]
    yield "bomb that claims its size", png(30000, 30000, b"")
    yield "no pixels", png(0, 0, b"")
    yield "one line of sixty thousand", png(60000, 1, bytes(60001))
    yield (
        "text that unpacks to much",
        png(4, 4, bytes(20), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(100_000_000)))),
    )
    yield "extreme but small", png(16000, 1, bytes(16001))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.brightness(tmp_path_factory.mktemp("pictures") / "bright.onnx")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_gets_labels(client: Client, model: Path, tmp_path: Path, kind: str) -> None:
    client.upload_model(model)
    path = tmp_path / f"x.{kind.lower()}"
    path.write_bytes(file(kind))
    with path.open("rb") as opened:
        for given in (path, str(path), path.read_bytes(), opened):
            (row,) = client.infer("bright", given).labels()
            assert [label for label, _ in row] == ["red", "green", "blue"]
            assert [score for _, score in row] == pytest.approx([1, 0.2, 0], abs=0.02)


def test_every_hostile_picture_is_refused_in_words_by_a_process_that_lives_on(
    empty_server: RunningServer, model: Path, tmp_path: Path
) -> None:
    with blindai.connect(empty_server.url, insecure_simulation=True) as client:
        client.upload_model(model)
        client.upload_model(small_models.sentiment(tmp_path / "other.onnx"))
        good = file("JPEG")
        client.infer("bright", good)
        client.infer("other", "text")
        before = empty_server.model_processes()
        for what, data in hostile():
            with pytest.raises(InferenceError) as refused:
                client.infer("bright", data)
            assert isinstance(refused.value, InvalidInputError | TooLargeError), (what, refused.value)
            assert client.infer("bright", good).labels(), what
        client.infer("other", "text")
        assert empty_server.model_processes() == before


def test_of_a_bomb_that_lies_no_more_is_unpacked_than_it_claims(client: Client, model: Path) -> None:
    client.upload_model(model)
    (row,) = client.infer("bright", png(100, 100, bytes(50_000_000))).labels()
    assert [score for _, score in row] == [0, 0, 0]


def test_pictures_of_any_size_run_together_where_the_recipe_makes_them_equal(client: Client, tmp_path: Path) -> None:
    client.upload_model(small_models.brightness(tmp_path / "equal.onnx"))
    rows = client.infer("equal", [file("PNG", size) for size in ((9, 30), (30, 9), (8, 8))]).labels()
    assert [row[0][0] for row in rows] == ["red"] * 3
    client.upload_model(small_models.brightness(tmp_path / "unequal.onnx", pipeline.Crop(top=0.5)))
    with pytest.raises(InvalidInputError, match="different sizes"):
        client.infer("unequal", [file("PNG", (9, 30)), file("PNG", (30, 9))])


CANDIDATES = np.array(
    [
        [32, 32, 16, 8, 0.9, 0.1, 0.8, 0.2],
        [33, 32, 16, 8, 0.9, 0.1, 0.7, 0.2],  # the same dog
        [8, 28, 40, 8, 0.9, 1.0, 0.1, 0.2],  # a cat that reaches over the edge
        [32, 4, 6, 6, 1.0, 0.1, 0.1, 0.9],  # a door on the border
        [50, 32, 4, 4, 0.2, 0.1, 0.1, 0.9],
        [50, 32, 4, 4, np.nan, 0.1, 0.1, 0.9],
    ]
)


def test_a_detector_answers_boxes_on_the_picture_that_was_sent(client: Client, tmp_path: Path) -> None:
    client.upload_model(small_models.detector(tmp_path / "detect.onnx", CANDIDATES))
    wide, high = file("JPEG", (128, 64)), file("PNG", (320, 640))
    result = client.infer("detect", [wide, high])  # in 64 × 64: halved, with 16 above; a tenth, with 16 at the left
    assert [tensor.name for tensor in result.outputs] == ["boxes", "labels", "scores"]
    (cat, dog), (tall_cat, door, tall_dog) = result.boxes()
    assert [one.label for one in (cat, dog, tall_cat, door, tall_dog)] == ["cat", "dog", "cat", "door", "dog"]
    assert [cat.score, dog.score] == pytest.approx([0.9, 0.72])
    assert (dog.left, dog.top, dog.right, dog.bottom) == pytest.approx((48, 24, 80, 40))
    assert (cat.left, cat.top, cat.right, cat.bottom) == pytest.approx((0, 16, 56, 32))
    assert (tall_dog.left, tall_dog.top, tall_dog.right, tall_dog.bottom) == pytest.approx((80, 280, 240, 360))
    assert client.infer("detect", wide).boxes() == [[cat, dog]]
    client.upload_model(small_models.brightness(tmp_path / "plain.onnx"))
    plain = client.infer("plain", wide)
    with pytest.raises(KeyError, match="boxes"):
        plain.boxes()


def test_a_picture_without_anything_on_it_gets_no_box(client: Client, tmp_path: Path) -> None:
    client.upload_model(small_models.detector(tmp_path / "empty.onnx", CANDIDATES[4:]))
    result = client.infer("empty", [file("JPEG"), file("PNG")])
    assert result.boxes() == [[], []]
    assert result["boxes"].shape == (2, 0, 4)


def test_twenty_five_thousand_boxes_in_a_heap_are_one(client: Client, tmp_path: Path) -> None:
    heap = np.tile(CANDIDATES[:1], (25_200, 1)) + np.random.default_rng(1).uniform(0, 0.1, (25_200, 8))
    client.upload_model(small_models.detector(tmp_path / "heap.onnx", heap, top=1000))
    (found,) = client.infer("heap", file("PNG")).boxes()
    assert [box.label for box in found] == ["dog"]


def test_boxes_of_a_model_with_other_labels_are_its_own_fault(client: Client, tmp_path: Path) -> None:
    path = small_models.detector(tmp_path / "wrong.onnx", CANDIDATES[:, :8])
    beside = path.with_name("wrong.onnx.pipeline.json")
    beside.write_bytes(beside.read_bytes().replace(b'"cat","dog","door"', b'"cat","dog"'))
    client.upload_model(path)
    with pytest.raises(InternalError):
        client.infer("wrong", file("PNG"))
    beside.write_bytes(beside.read_bytes().replace(b'"of":"output0"', b'"of":"output"'))
    with pytest.raises(InvalidModelError, match="reads an output"):
        client.upload_model(path)
