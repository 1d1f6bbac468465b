"""Models that outlive the server: what is there after a restart, and what is refused."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from server.test_model_store import content, finish, header_for, upload

from blindai.attester.sealing import INSECURE_KEY_NAME, InsecureKeyFile
from blindai.errors import (
    InvalidSettingsError,
    ModelNotFoundError,
    ModelStoreError,
    TooLargeError,
    UnsealError,
)
from blindai.server.kept_store import INDEX_NAME, LOCK_NAME, KeptStore
from blindai.server.model_config import ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.sharing import Share
from blindai.server.store_index import MAX_INDEX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from blindai.attester.sealing import Sealer


class CountingSealer:
    """A TEE with a counter, as a TPM's."""

    kind = "counting"

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._next: bytes | None = None
        self.count = 0
        self.fails = ""

    def root_key(self) -> bytes:
        return self._key

    def next_key(self) -> bytes:
        self._next = os.urandom(32)
        return self._next

    def waiting_key(self) -> bytes | None:
        return self._next

    def take_up(self) -> None:
        assert self._next
        self._key, self._next = self._next, None

    def drop_next(self) -> None:
        self._next = None

    def generation(self) -> int:
        if self.fails:
            raise UnsealError("the TPM does not answer")
        return self.count

    def advance(self, generation: int) -> None:
        if self.fails == "before it counts":
            raise UnsealError("the TPM does not answer")
        self.count += self.count < generation
        if self.fails:
            raise UnsealError("the TPM does not answer")
        assert generation == self.count


class WatchedSealer(CountingSealer):
    """One whose machine's operator copies every index, at the moment in which it is counted."""

    def __init__(self, index: Path) -> None:
        super().__init__()
        self._index = index
        self.seen: list[bytes] = []

    def advance(self, generation: int) -> None:
        if self.fails:
            self.seen.append(self._index.read_bytes())
        super().advance(generation)


def open_store(folder: Path, sealer: Sealer | None = None) -> ModelStore:
    return ModelStore(folder, kept=KeptStore(folder, sealer or InsecureKeyFile(folder)))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_everything_is_as_it_was_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    upload(store, "a", {"m.onnx": b"one", "m.onnx.data": b"more" * 400_000}, version="7")
    second = upload(store, "a", b"two")
    store.reconfigure(second, ServingConfig(max_batch_size=4, labels=(("out", ("cat", "dog")),)))
    store.share("public", "a", Share(run=frozenset({"*"}), visible=frozenset({"b", "a"})))
    before = store.models()
    store.close()
    again = open_store(tmp_path)
    assert again.models() == before
    assert again.sharing.of("public", "a") == Share(run=frozenset({"*"}), visible=frozenset({"b", "a"}))
    assert content(again, again.resolve("a", "7"))["m.onnx.data"] == b"more" * 400_000
    assert upload(again, "a", b"three").version == "9"
    assert again.resolve("@last").sequence > second.sequence
    again.close()


def test_what_was_deleted_or_never_registered_is_gone_after_a_restart(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path, InsecureKeyFile(tmp_path))
    store = ModelStore(tmp_path, kept=kept)
    upload(store, "gone", b"gone")
    upload(store, "kept", b"kept")
    store.delete("gone")
    unfinished = store.begin_upload("half", header_for({"m.onnx": b"half"}))
    unfinished.write(b"half")
    unfinished.complete()
    kept.close()  # as a kill would, without `store.close`
    again = open_store(tmp_path)
    assert [model.name for model in again.models()] == ["kept"]
    assert len(list((tmp_path / "files").iterdir())) == 1
    again.close()


def test_models_that_come_with_the_server_are_not_kept(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    incoming = store.begin_upload("operators", header_for({"m.onnx": b"x"}), comes_with_server=True)
    incoming.write(b"x")
    finish(incoming)
    store.close()
    assert not list((tmp_path / "files").iterdir())
    again = open_store(tmp_path)
    assert again.models() == ()
    again.close()


def test_names_owners_and_weights_are_nowhere_in_the_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    upload(store, "canary-name", {"canary-file.onnx": b"canary-weights" * 1000}, version="canary-version")
    store.share("public", "canary-name", Share(run=frozenset({"canary-tenant"})))
    store.close()
    everything = b"".join(
        bytes(path) + path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != INDEX_NAME
    )
    assert b"canary" not in everything + (tmp_path / INDEX_NAME).read_bytes()
    assert (tmp_path / INDEX_NAME).stat().st_mode & 0o777 == 0o600


def test_the_size_of_the_index_is_padded(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    sizes = set()
    for number in range(8):
        upload(store, "a", b"%d" % number)
        sizes.add((tmp_path / INDEX_NAME).stat().st_size - 48 - 16)
    assert sizes == {1024, 2048, 4096, 8192}
    store.close()


def test_a_folder_belongs_to_one_server(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(InvalidSettingsError, match="another server keeps its models"):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_every_changed_byte_of_the_index_is_refused_and_nothing_is_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    upload(store, "a", b"weights")
    store.close()
    index = tmp_path / INDEX_NAME
    whole = index.read_bytes()
    for at in range(len(whole)):
        flip(index, at)
        with pytest.raises(UnsealError, match="index"):
            open_store(tmp_path)
        index.write_bytes(whole)
    for cut in (b"", whole[:47], whole[:48], whole[:-1], whole + b"\0"):
        index.write_bytes(cut)
        with pytest.raises(UnsealError, match="index"):
            open_store(tmp_path)
    index.write_bytes(whole)
    again = open_store(tmp_path)
    assert content(again, again.resolve("a")) == {"m.onnx": b"weights"}
    again.close()


def test_another_tees_index_is_refused(tmp_path: Path) -> None:
    open_with_model(tmp_path)
    (tmp_path / INSECURE_KEY_NAME).write_bytes(os.urandom(32))
    with pytest.raises(UnsealError, match="another machine or measurement"):
        open_store(tmp_path)


def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    open_with_model(tmp_path)
    (tmp_path / INSECURE_KEY_NAME).write_bytes(b"short")
    with pytest.raises(UnsealError, match="holds 5 bytes"):
        open_store(tmp_path)


def open_with_model(folder: Path) -> None:
    store = open_store(folder)
    upload(store, "a", b"weights")
    store.close()


def test_a_changed_file_costs_its_own_model_only(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first, second = upload(store, "a", b"one"), upload(store, "b", b"two")
    store.close()
    flip(next(iter((tmp_path / "files").iterdir())), 5)
    again = open_store(tmp_path)
    opened, refused = [], []
    for model in (first, second):
        try:
            opened.append(content(again, model))
        except UnsealError as error:
            refused.append((model.name, str(error)))
    ((name, words),) = refused
    assert words.startswith(f"{name!r} version '1': ")
    assert len(opened) == 1
    again.close()


def test_two_files_exchanged_cost_both_models(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    models = upload(store, "a", b"one"), upload(store, "b", b"two"), upload(store, "c", b"three" * 9000)
    store.close()
    small = [path for path in (tmp_path / "files").iterdir() if path.stat().st_size < 9000]
    one, two = (path.read_bytes() for path in small)
    small[0].write_bytes(two)
    small[1].write_bytes(one)
    again = open_store(tmp_path)
    for model in models[:2]:
        with pytest.raises(UnsealError, match="exchanged"):
            content(again, model)
    assert content(again, models[2]) == {"m.onnx": b"three" * 9000}
    again.close()


def test_an_old_index_is_refused_where_a_tee_counts(tmp_path: Path) -> None:
    sealer = CountingSealer()
    store = open_store(tmp_path, sealer)
    upload(store, "revoked", b"old")
    old = (tmp_path / INDEX_NAME).read_bytes()
    store.delete("revoked")
    store.close()
    (tmp_path / INDEX_NAME).write_bytes(old)
    with pytest.raises(UnsealError, match="generation 2, and the TEE's counter says 3"):
        open_store(tmp_path, sealer)
    (tmp_path / INDEX_NAME).unlink()
    with pytest.raises(UnsealError, match="generation 0"):
        open_store(tmp_path, sealer)


def test_a_server_killed_before_it_counted_goes_on(tmp_path: Path) -> None:
    sealer = CountingSealer()
    store = open_store(tmp_path, sealer)
    upload(store, "a", b"one")
    store.close()
    sealer.count -= 1
    again = open_store(tmp_path, sealer)
    assert sealer.count == 2
    upload(again, "b", b"two")
    again.close()


def test_without_a_counter_the_log_says_what_is_not_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_store(tmp_path).close()
    assert "an old store put back in place of a newer one is not noticed" in caplog.text


def test_a_change_that_cannot_be_kept_does_not_count(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    upload(store, "a", b"one")
    (tmp_path / (INDEX_NAME + ".new")).mkdir()  # so that no index can be written
    with pytest.raises(ModelStoreError):
        upload(store, "b", b"two")
    with pytest.raises(ModelStoreError):
        store.delete("a")
    with pytest.raises(ModelStoreError):
        store.share("public", "a", Share(run=frozenset({"*"})))
    with pytest.raises(ModelNotFoundError):
        store.resolve("b")
    assert store.sharing.of("public", "a") == Share()
    assert content(store, store.resolve("a")) == {"m.onnx": b"one"}
    (tmp_path / (INDEX_NAME + ".new")).rmdir()
    upload(store, "b", b"two")
    store.close()


@pytest.mark.parametrize("when", ["before it counts", "after it has counted"])
def test_a_change_that_a_tee_does_not_count_is_undone(tmp_path: Path, when: str) -> None:
    """And so is the index on the disk: a kill would have left the refused change, without its files."""
    sealer, folder = CountingSealer(), tmp_path / "kept"
    store = open_store(folder, sealer)
    upload(store, "a", b"one", version="1")
    sealer.fails = when
    incoming = store.begin_upload("a", header_for({"m.onnx": b"two"}, version="1"))
    incoming.write(b"two")
    incoming.complete()
    with pytest.raises(ModelStoreError):
        incoming.register(replaces=True)
    assert content(store, store.resolve("a")) == {"m.onnx": b"one"}
    sealer.fails = ""
    shutil.copytree(folder, tmp_path / "killed")
    count = sealer.count
    killed = open_store(tmp_path / "killed", sealer)
    assert content(killed, killed.resolve("a")) == {"m.onnx": b"one"}
    killed.close()
    sealer.count = count
    upload(store, "b", b"three")
    store.close()
    again = open_store(folder, sealer)
    assert [content(again, model)["m.onnx"] for model in again.models()] == [b"one", b"three"]
    again.close()


def test_an_index_of_a_failed_change_never_passes_for_one_that_was_answered(tmp_path: Path) -> None:
    """The operator may keep what was written before the TEE, which it owns, was made to fail, or the server killed."""
    sealer = WatchedSealer(tmp_path / INDEX_NAME)
    store = open_store(tmp_path, sealer)
    upload(store, "revoked", b"old")
    before = (tmp_path / INDEX_NAME).read_bytes()
    sealer.fails = "before it counts"
    with pytest.raises(UnsealError):
        upload(store, "other", b"other")
    store.close()
    sealer.fails = ""
    written = sealer.seen.copy()
    (tmp_path / INDEX_NAME).write_bytes(before)
    again = open_store(tmp_path, sealer)
    again.delete("revoked")
    again.close()
    assert len(written) == 2
    for index in written:
        (tmp_path / INDEX_NAME).write_bytes(index)
        with pytest.raises(UnsealError, match="counter says"):
            open_store(tmp_path, sealer)


def test_an_index_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    model = upload(store, "a", b"one")
    labels = ("x" * MAX_INDEX_BYTES,)
    with pytest.raises(TooLargeError, match="what is said about all models"):
        store.reconfigure(model, ServingConfig(labels=(("out", labels),)))
    upload(store, "b", b"two")
    store.close()
    again = open_store(tmp_path)
    assert [model.name for model in again.models()] == ["a", "b"]
    again.close()


def test_a_deleted_name_is_shared_with_nobody_even_if_the_server_is_killed_at_once(tmp_path: Path) -> None:
    kept = KeptStore(tmp_path, InsecureKeyFile(tmp_path))
    store = ModelStore(tmp_path, kept=kept)
    for name in ("a", "b"):
        upload(store, name, b"one")
        store.share("public", name, Share(run=frozenset({"*"})))
    store.delete("a")
    kept.close()
    again = open_store(tmp_path)
    assert again.sharing.of("public", "a") == Share()
    assert again.sharing.of("public", "b").lets_run("x")
    again.close()


def test_links_that_the_disks_owner_makes_lead_nowhere(tmp_path: Path) -> None:
    """They would have the server remove, or write over, what is not the store's."""
    outside, store_folder = tmp_path / "outside", tmp_path / "kept"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    open_with_model(store_folder)
    (store_folder / "files" / "folder").mkdir()
    (store_folder / "files" / "link").symlink_to(outside)
    (store_folder / "index.new").symlink_to(outside / "precious")
    store = open_store(store_folder)
    (store_folder / "index.new").symlink_to(outside / "precious")
    upload(store, "b", b"two")
    store.close()
    (store_folder / LOCK_NAME).unlink()
    (store_folder / LOCK_NAME).symlink_to(outside / "lock")
    with pytest.raises(InvalidSettingsError, match="symbolic"):
        open_store(store_folder)
    (store_folder / LOCK_NAME).unlink()
    shutil.rmtree(store_folder / "files")
    (store_folder / "files").symlink_to(outside)
    with pytest.raises(InvalidSettingsError, match="symbolic link"):
        open_store(store_folder)
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_bytes() == b"precious"


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / INSECURE_KEY_NAME).mkdir()
    with pytest.raises(InvalidSettingsError, match=r"insecure-simulation-sealing-key: Is a directory"):
        open_store(tmp_path)


def test_a_change_that_comes_after_the_end_changes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    upload(store, "a", b"weights")
    late = store.begin_upload("late", header_for({"m.onnx": b"late"}))
    late.write(b"late")
    late.complete()
    store.close()
    with pytest.raises(ModelStoreError, match="the store is closed"):
        late.register()
    again = open_store(tmp_path)
    assert [model.name for model in again.models()] == ["a"]
    assert content(again, again.resolve("a")) == {"m.onnx": b"weights"}
    again.close()
