"""What is uploaded: headers and manifests have one form, and digests cover all of it."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.bundle import (
    MAX_FILES,
    MAX_UPLOAD_HEADER_BYTES,
    MODEL_NAME,
    BundleFile,
    ModelManifest,
    SessionOptions,
    UploadHeader,
    UploadResult,
    digest_text,
    encode_upload_header,
    parse_manifest,
    parse_upload_header,
)
from blindai.bundle_files import discover_bundle
from blindai.errors import InternalError, InvalidInputError, InvalidModelError, ModelDigestMismatchError

if TYPE_CHECKING:
    from pathlib import Path

HEADER = UploadHeader(version="3", files=(("m.onnx", 5), ("m.onnx.data", 0)), default_shape=(1, -1), load=True)
MODEL = BundleFile(path="m.onnx", size=3, sha256=hashlib.sha256(b"abc").digest())
DATA = BundleFile(path="m.onnx.data", size=0, sha256=hashlib.sha256(b"").digest())
MANIFEST = ModelManifest(files=(MODEL, DATA))


def json_of(header: UploadHeader) -> bytes:
    encoded = encode_upload_header(header)
    assert int.from_bytes(encoded[:4], "big") == len(encoded) - 4
    return encoded[4:]


@given(
    version=st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    sizes=st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=5),
    shape=st.none() | st.lists(st.integers(-1, 2**40), max_size=16).map(tuple),
    load=st.booleans(),
)
def test_upload_header_returns_what_was_announced(
    version: str | None, sizes: list[int], shape: tuple[int, ...] | None, *, load: bool
) -> None:
    files = (("m.onnx", sizes[0]), *((f"w{index}.data", size) for index, size in enumerate(sizes[1:])))
    header = UploadHeader(version=version, files=files, default_shape=shape, load=load)
    assert parse_upload_header(json_of(header)) == header


def test_upload_header_has_this_form() -> None:
    assert json_of(HEADER) == (
        b'{"default_shape":[1,-1],"files":[{"path":"m.onnx","size":5},{"path":"m.onnx.data","size":0}],'
        b'"load":true,"owner_key":null,"version":"3"}'
    )


@pytest.mark.parametrize(
    ("found", "replaced"),
    [
        (b'"load":true', b'"load":1'),
        (b'"load":true,', b""),
        (b'"load":true', b'"load":true,"load":true'),
        (b'"load":true', b'"load":true,"more":1'),
        (b'"size":5', b'"size":-5'),
        (b'"size":5', b'"size":5.0'),
        (b'"size":5', b'"size":true'),
        (b'"size":5', b'"size":9007199254740992'),
        (b'"path":"m.onnx",', b""),
        (b'"path":"m.onnx"', b'"path":7'),
        (b'"owner_key":null', b'"owner_key":""'),
        (b'"owner_key":null', b'"owner_key":"' + b"A" * 42 + b'"'),
        (b'"owner_key":null', b'"owner_key":7'),
        (b'"owner_key":null,', b""),
        (b'"version":"3"', b'"version":3'),
        (b'"version":"3"', b'"version":"../3"'),
        (b'"version":"3"', b'"version":""'),
        (b"[1,-1]", b"[1,-2]"),
        (b"[1,-1]", b"[1,true]"),
        (b"[1,-1]", b"[" + b"1," * 16 + b"1]"),
        (b"[1,-1]", b'"1"'),
        (b"}", b""),
    ],
)
def test_refuses_a_malformed_upload_header(found: bytes, replaced: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_upload_header(json_of(HEADER).replace(found, replaced))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_input_error(data: bytes) -> None:
    with pytest.raises((InvalidInputError, InvalidModelError)):
        parse_upload_header(data)


def test_refuses_a_header_above_64_kib_on_both_sides() -> None:
    with pytest.raises(InvalidInputError):
        parse_upload_header(json_of(HEADER).ljust(MAX_UPLOAD_HEADER_BYTES + 1))
    files = (("m.onnx", 0), *((f"{index:03}".ljust(255, "x"), 2**53 - 1) for index in range(MAX_FILES - 1)))
    assert len(json_of(dataclasses.replace(HEADER, files=files))) < MAX_UPLOAD_HEADER_BYTES


@pytest.mark.parametrize(
    "path",
    [
        "",
        "../m.onnx",
        "/etc/passwd.onnx",
        "a/m.onnx",
        "a\\m.onnx",
        ".m.onnx",
        "-m.onnx",
        "m\n.onnx",
        "m.onnx\n",
        "é.onnx",
    ],
)
def test_refuses_a_path_that_is_not_flat(path: str) -> None:
    with pytest.raises(InvalidModelError, match="flat name"):
        UploadHeader(version=None, files=((path, 1),), default_shape=None, load=False)


@pytest.mark.parametrize(
    "files",
    [
        (),
        (("weights.bin", 1),),
        (("a.onnx", 1), ("b.onnx", 1)),
        (("a.onnx", 1), ("w", 1), ("w", 1)),
        (("a.onnx", 1), *((f"w{index}", 1) for index in range(MAX_FILES))),
    ],
)
def test_refuses_files_that_are_no_bundle(files: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(InvalidModelError):
        UploadHeader(version=None, files=files, default_shape=None, load=False)


def test_manifest_digest_is_the_formula_of_the_specification() -> None:
    manifest = MANIFEST.encode()
    expected = hashlib.sha256(b"blindai/1 model\0" + len(manifest).to_bytes(4, "big") + manifest).digest()
    assert MANIFEST.digest == expected
    assert digest_text(expected) == "sha256:" + expected.hex()


def test_manifest_has_this_form() -> None:
    assert ModelManifest(files=(MODEL,)).encode() == (
        b'{"files":[{"path":"m.onnx","sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",'
        b'"size":3}],"session":{"graph_optimization":"all","provider":"CPUExecutionProvider"}}'
    )


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(MANIFEST, files=(dataclasses.replace(MODEL, size=4), DATA)),
        dataclasses.replace(MANIFEST, files=(dataclasses.replace(MODEL, path="n.onnx"), DATA)[::-1]),
        dataclasses.replace(MANIFEST, files=(dataclasses.replace(MODEL, sha256=bytes(32)), DATA)),
        dataclasses.replace(MANIFEST, files=(MODEL,)),
        dataclasses.replace(MANIFEST, session=SessionOptions(graph_optimization="basic")),
    ],
)
def test_digest_changes_with_every_part(other: ModelManifest) -> None:
    assert other.digest != MANIFEST.digest


def test_manifest_returns_what_was_encoded() -> None:
    assert parse_manifest(MANIFEST.encode()) == MANIFEST
    assert MANIFEST.model_path == "m.onnx"


@pytest.mark.parametrize(
    ("found", "replaced"),
    [
        (b'{"files"', b'{ "files"'),
        (b"ba7816bf", b"BA7816BF"),
        (b"ba7816bf", b"ba7816"),
        (b"ba7816bf", b"ba7816b!"),
        (b'"size":3', b'"size":-3'),
        (b'"size":3', b'"size":3,"more":0'),
        (b'"all"', b'"most"'),
        (b"CPUExecutionProvider", b"AzureExecutionProvider"),
        (b"m.onnx.data", b"a.data"),
        (b"m.onnx.data", b"../data"),
    ],
)
def test_refuses_another_form_of_a_manifest(found: bytes, replaced: bytes) -> None:
    with pytest.raises(InvalidModelError):
        parse_manifest(MANIFEST.encode().replace(found, replaced))


def test_upload_result_returns_what_was_encoded() -> None:
    result = UploadResult(name="m", version="1", digest=digest_text(MANIFEST.digest), manifest=MANIFEST.encode())
    assert UploadResult.decode(result.encode()) == result


def test_upload_result_refuses_a_digest_that_is_not_the_manifests() -> None:
    result = UploadResult(name="m", version="1", digest=digest_text(bytes(32)), manifest=MANIFEST.encode())
    with pytest.raises(ModelDigestMismatchError):
        UploadResult.decode(result.encode())


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"digest":1,"manifest":"","name":"","version":""}'])
def test_upload_result_refuses_what_it_cannot_read(answer: bytes) -> None:
    with pytest.raises(InternalError):
        UploadResult.decode(answer)


@pytest.mark.parametrize("beside", ["m.onnx.data", "m.onnx_data"])
def test_finds_the_weights_beside_the_model(tmp_path: Path, beside: str) -> None:
    model, weights = tmp_path / "m.onnx", tmp_path / beside
    model.write_bytes(b"model")
    assert discover_bundle(model, None) == (model,)
    weights.write_bytes(b"weights")
    assert discover_bundle(model, None) == (model, weights)
    assert discover_bundle(model, ()) == (model,)


def test_takes_the_named_data_files_and_misses_none(tmp_path: Path) -> None:
    model, weights = tmp_path / "m.onnx", tmp_path / "weights.bin"
    model.write_bytes(b"model")
    with pytest.raises(FileNotFoundError):
        discover_bundle(model, [weights])
    weights.write_bytes(b"weights")
    assert discover_bundle(model, [weights]) == (model, weights)
    with pytest.raises(InvalidModelError):
        discover_bundle(weights, None)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a b", "a\n", "a" * 129, "é"])
def test_a_model_name_is_plain(name: str) -> None:
    assert not MODEL_NAME.match(name)
    assert MODEL_NAME.match("distilbert-base.v2_1")
