"""How models are kept: sealed, whole or not at all, and found by name, version, digest or age."""

from __future__ import annotations

import hashlib
import os
import resource
import threading
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from blindai.bundle import UploadHeader
from blindai.errors import (
    InvalidInputError,
    ModelDigestMismatchError,
    ModelNotFoundError,
    ModelStoreError,
    UnsealError,
)
from blindai.server.model_store import ModelStore
from blindai.server.sealed_file import CHUNK_BYTES, TAG_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blindai.server.model_store import StoredModel
    from blindai.server.model_upload import Upload


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    opened = ModelStore(tmp_path / "store")
    yield opened
    opened.close()


def header_for(files: dict[str, bytes], version: str | None = None) -> UploadHeader:
    sizes = tuple((path, len(data)) for path, data in files.items())
    return UploadHeader(version=version, files=sizes, default_shape=None, load=False)


def upload(
    store: ModelStore, name: str, data: bytes | dict[str, bytes] = b"model", version: str | None = None
) -> StoredModel:
    files = data if isinstance(data, dict) else {"m.onnx": data}
    incoming = store.begin_upload(name, header_for(files, version))
    incoming.write(b"".join(files.values()))
    return finish(incoming)


def finish(incoming: Upload) -> StoredModel:
    incoming.complete()
    return incoming.register()


def content(store: ModelStore, model: StoredModel) -> dict[str, bytes]:
    return {file.path: b"".join(chunks) for file, chunks in store.open_bundle(model)}


def on_disk(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 7]
)
def test_returns_what_was_uploaded(store: ModelStore, size: int) -> None:
    files = {"m.onnx": b"model", "empty": b"", "w.data": os.urandom(size), "a.data": b"last"}
    model = upload(store, "m", files)
    assert content(store, model) == files
    assert [file.path for file in model.manifest.files] == sorted(files)
    assert {file.path: file.sha256 for file in model.manifest.files} == {
        path: hashlib.sha256(data).digest() for path, data in files.items()
    }


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_the_cut_of_the_stream_does_not_matter(store: ModelStore, step: int) -> None:
    files = {"w.data": os.urandom(1500), "m.onnx": b"model", "empty": b""}
    stream = b"".join(files.values())
    incoming = store.begin_upload("m", header_for(files))
    for start in range(0, len(stream), step):
        incoming.write(memoryview(stream)[start : start + step])
    incoming.write(b"")
    assert content(store, finish(incoming)) == files


def test_nothing_that_was_given_is_readable_on_disk(store: ModelStore, tmp_path: Path) -> None:
    secret = b"weights that are worth a lot"
    upload(store, "secret-name", {"secret-file.onnx": secret * 100}, version="secret-version")
    (path,) = on_disk(tmp_path)
    assert len(path.name) == 64
    assert "secret" not in str(path.relative_to(tmp_path))
    assert secret[:8] not in path.read_bytes()
    assert len(path.read_bytes()) == 4096 + TAG_BYTES  # padded


def test_equal_models_look_different_on_disk(store: ModelStore, tmp_path: Path) -> None:
    upload(store, "a", b"equal")
    upload(store, "b", b"equal")
    first, second = (path.read_bytes() for path in on_disk(tmp_path))
    assert first != second


def test_directory_and_files_are_private(store: ModelStore, tmp_path: Path) -> None:
    upload(store, "m")
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert on_disk(tmp_path)[0].stat().st_mode & 0o777 == 0o600


def sealed_chunks(path: Path) -> list[bytes]:
    data = path.read_bytes()
    step = CHUNK_BYTES + TAG_BYTES
    return [data[start : start + step] for start in range(0, len(data), step)]


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2], [0, 1], [0, 0, 2], [0, 1, 2, 2], [2], [0, 1, 1], []], ids=str)
def test_refuses_chunks_that_were_moved_dropped_or_doubled(store: ModelStore, tmp_path: Path, order: list[int]) -> None:
    model = upload(store, "m", os.urandom(3 * CHUNK_BYTES))
    (path,) = on_disk(tmp_path)
    chunks = sealed_chunks(path)
    path.write_bytes(b"".join(chunks[index] for index in order))
    with pytest.raises(UnsealError):
        content(store, model)


@pytest.mark.parametrize("where", [0, 16, CHUNK_BYTES, CHUNK_BYTES + TAG_BYTES, -1])
def test_refuses_a_flipped_bit(store: ModelStore, tmp_path: Path, where: int) -> None:
    model = upload(store, "m", os.urandom(CHUNK_BYTES + 100))
    (path,) = on_disk(tmp_path)
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnsealError):
        content(store, model)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_refuses_another_length(store: ModelStore, tmp_path: Path, change: object) -> None:
    model = upload(store, "m", b"model")
    (path,) = on_disk(tmp_path)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]  # parametrised lambdas
    with pytest.raises(UnsealError):
        content(store, model)


def test_refuses_the_file_of_another_model(store: ModelStore, tmp_path: Path) -> None:
    first = upload(store, "first", b"aaaaa")
    (path,) = on_disk(tmp_path)
    second = upload(store, "second", b"bbbbb")
    (other,) = set(on_disk(tmp_path)) - {path}
    path.write_bytes(other.read_bytes())
    with pytest.raises(UnsealError):
        content(store, first)
    assert content(store, second) == {"m.onnx": b"bbbbb"}


def test_nothing_opens_under_another_key(tmp_path: Path) -> None:
    drawn = iter([b"k" * 32, bytes(32), b"K" * 32, bytes(32)])  # two keys, and one name
    first = ModelStore(tmp_path / "a", random=lambda _: next(drawn))
    second = ModelStore(tmp_path / "b", random=lambda _: next(drawn))
    upload(first, "m", b"aaaaa")
    model = upload(second, "m", b"bbbbb")
    (source,), (target,) = on_disk(tmp_path / "a"), on_disk(tmp_path / "b")
    target.write_bytes(source.read_bytes())
    with pytest.raises(UnsealError):
        content(second, model)


@pytest.mark.parametrize("sent", [b"", b"four", b"longer"])
def test_refuses_more_or_fewer_bytes_than_announced_and_keeps_none(
    store: ModelStore, tmp_path: Path, sent: bytes
) -> None:
    incoming = store.begin_upload("m", header_for({"m.onnx": b"model"}))
    with pytest.raises(ModelDigestMismatchError):  # noqa: PT012  # `write` notices too many, `complete` too few
        incoming.write(sent)
        incoming.complete()
    assert store.models() == ()
    assert on_disk(tmp_path) == []
    with pytest.raises(ModelStoreError, match="is over"):
        incoming.write(b"m")


def test_an_aborted_upload_leaves_nothing(store: ModelStore, tmp_path: Path) -> None:
    incoming = store.begin_upload("m", header_for({"m.onnx": b"model", "w.data": b"12345"}))
    incoming.write(b"model123")
    assert len(on_disk(tmp_path)) == 2
    incoming.abort()
    incoming.abort()
    assert on_disk(tmp_path) == []
    with pytest.raises(ModelNotFoundError):
        store.resolve("m")


def test_a_model_is_not_there_before_its_upload_has_finished(store: ModelStore) -> None:
    incoming = store.begin_upload("m", header_for({"m.onnx": b"model"}))
    incoming.write(b"model")
    assert store.models() == ()
    model = finish(incoming)
    incoming.abort()
    assert store.resolve("m") == model


@pytest.mark.parametrize("name", ["", "../m", "a/b", ".m", "m\n", "@last"])
def test_refuses_a_name_that_is_not_plain(store: ModelStore, name: str) -> None:
    with pytest.raises(InvalidInputError):
        store.begin_upload(name, header_for({"m.onnx": b"model"}))


def test_versions_count_up_from_the_highest(store: ModelStore) -> None:
    assert upload(store, "m", b"a").version == "1"
    assert upload(store, "m", b"b").version == "2"
    assert upload(store, "m", b"c", version="9").version == "9"
    assert upload(store, "m", b"d", version="beta").version == "beta"
    assert upload(store, "m", b"e").version == "10"
    assert upload(store, "other", b"a").version == "1"


def test_the_same_model_again_is_the_same_version_and_becomes_last(store: ModelStore, tmp_path: Path) -> None:
    first = upload(store, "m", b"a")
    second = upload(store, "m", b"b")
    again = upload(store, "m", b"a")
    assert (again.version, again.digest) == (first.version, first.digest)
    assert again.sequence > second.sequence
    assert store.resolve("m") == store.resolve("@last") == again
    assert len(on_disk(tmp_path)) == 2
    assert content(store, again) == {"m.onnx": b"a"}


def test_a_version_never_becomes_another_model(store: ModelStore, tmp_path: Path) -> None:
    first = upload(store, "m", b"a", version="1")
    with pytest.raises(ModelDigestMismatchError) as raised:
        upload(store, "m", b"b", version="1")
    assert raised.value.hint
    assert store.models() == (first,)
    assert len(on_disk(tmp_path)) == 1
    assert upload(store, "m", b"a", version="1").version == "1"


def test_finds_models_by_name_version_digest_and_age(store: ModelStore) -> None:
    first, second, other = upload(store, "m", b"a"), upload(store, "m", b"b"), upload(store, "other", b"a")
    assert store.resolve("m") == second
    assert store.resolve("m", "1") == first
    assert store.resolve(f"m@{first.digest}") == first
    assert store.resolve("@last") == other
    assert store.models() == (first, second, other)


@pytest.mark.parametrize("reference", ["n", "", "@", "m@", "m@sha256:00", "M", "@first", "*"])
def test_says_that_it_cannot_find_a_model(store: ModelStore, reference: str) -> None:
    upload(store, "m")
    with pytest.raises(ModelNotFoundError, match="Cannot find the model"):
        store.resolve(reference)
    with pytest.raises(ModelNotFoundError, match="Cannot find the model"):
        store.resolve("m", "2")


def test_an_empty_store_has_no_last_model(store: ModelStore) -> None:
    with pytest.raises(ModelNotFoundError, match="Cannot find the model"):
        store.resolve("@last")


def test_deletes_a_version_or_all_of_them_with_their_files(store: ModelStore, tmp_path: Path) -> None:
    first, second, third = (upload(store, "m", data) for data in (b"a", b"b", b"c"))
    other = upload(store, "other")
    assert store.delete("m", "1") == (first,)
    assert len(on_disk(tmp_path)) == 3
    assert store.delete("m") == (second, third)
    assert store.models() == (other,)
    assert len(on_disk(tmp_path)) == 1
    with pytest.raises(ModelNotFoundError):
        content(store, first)
    with pytest.raises(ModelNotFoundError):
        store.delete("m")


def test_close_removes_every_file(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    upload(store, "m")
    store.begin_upload("n", header_for({"m.onnx": b"model"})).write(b"mod")
    assert len(on_disk(tmp_path)) == 2
    store.close()
    assert on_disk(tmp_path) == []
    assert store.models() == ()


def test_a_claimed_size_reserves_neither_memory_nor_disk(store: ModelStore, tmp_path: Path) -> None:
    header = UploadHeader(version=None, files=(("m.onnx", 2**53 - 1),), default_shape=None, load=False)
    tracemalloc.start()
    incoming = store.begin_upload("m", header)
    incoming.write(b"x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < CHUNK_BYTES
    assert on_disk(tmp_path)[0].stat().st_blocks == 0
    incoming.abort()


def test_an_upload_holds_a_few_chunks_at_most(store: ModelStore) -> None:
    header = UploadHeader(version=None, files=(("m.onnx", 16 * CHUNK_BYTES),), default_shape=None, load=False)
    piece = os.urandom(CHUNK_BYTES // 4)
    incoming = store.begin_upload("m", header)
    tracemalloc.start()
    for _ in range(64):
        incoming.write(piece)
    model = finish(incoming)
    for _, chunks in store.open_bundle(model):
        assert sum(len(chunk) for chunk in chunks) == 16 * CHUNK_BYTES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * CHUNK_BYTES


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A disk that is full after `size` bytes of a file; Python ignores the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_upload_and_leaves_nothing(store: ModelStore, tmp_path: Path) -> None:
    data = os.urandom(3 * CHUNK_BYTES)
    incoming = store.begin_upload("m", header_for({"m.onnx": data}))
    with file_size_limit(CHUNK_BYTES + 1000), pytest.raises(ModelStoreError, match="cannot be stored"):
        incoming.write(data)
    assert on_disk(tmp_path) == []
    assert content(store, upload(store, "m", data)) == {"m.onnx": data}


def test_models_can_be_uploaded_at_the_same_time(store: ModelStore) -> None:
    data = {f"m{index}": os.urandom(CHUNK_BYTES + index) for index in range(4)}
    waiting = {name: store.begin_upload(name, header_for({"m.onnx": data[name]})) for name in data}
    for start in range(0, CHUNK_BYTES + 4, 100_000):
        for name, incoming in waiting.items():
            incoming.write(data[name][start : start + 100_000])
    for name, incoming in waiting.items():
        assert content(store, finish(incoming)) == {"m.onnx": data[name]}


def test_versions_stay_unique_when_threads_upload_one_name(store: ModelStore) -> None:
    threads = [threading.Thread(target=upload, args=(store, "m", b"%d" % index)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    models = store.models()
    assert sorted(int(model.version) for model in models) == list(range(1, 17))
    assert len({model.sequence for model in models}) == 16
