"""A store's key that is exchanged for another: what opens afterwards, what no longer does, and what a kill leaves."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from server.test_kept_store import CountingSealer, open_store
from server.test_model_store import content, upload

from blindai.attester.sealing import INSECURE_KEY_NAME, InsecureKeyFile, next_to
from blindai.errors import InvalidSettingsError, ModelStoreError, UnsealError
from blindai.server.kept_store import INDEX_NAME, KeptStore
from blindai.server.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


def rotate(folder: Path) -> None:
    kept = KeptStore(folder, InsecureKeyFile(folder))
    kept.rotate()
    kept.close()


def with_model(folder: Path) -> None:
    store = open_store(folder)
    upload(store, "a", b"weights")
    store.close()


def require_model(folder: Path) -> None:
    store = open_store(folder)
    assert content(store, store.resolve("a")) == {"m.onnx": b"weights"}
    store.close()
    assert not next_to(folder / INSECURE_KEY_NAME).exists()


def test_after_a_rotation_models_are_as_they_were_and_the_old_key_opens_nothing(tmp_path: Path) -> None:
    with_model(tmp_path)
    old = (tmp_path / INSECURE_KEY_NAME).read_bytes()
    rotate(tmp_path)
    new = (tmp_path / INSECURE_KEY_NAME).read_bytes()
    assert new != old
    require_model(tmp_path)
    (tmp_path / INSECURE_KEY_NAME).write_bytes(old)
    with pytest.raises(UnsealError, match="index does not open"):
        open_store(tmp_path)


def test_an_old_index_put_back_does_not_open_after_a_rotation(tmp_path: Path) -> None:
    """Even where nothing counts: only the old key, which is gone, would open it."""
    with_model(tmp_path)
    old = (tmp_path / INDEX_NAME).read_bytes()
    rotate(tmp_path)
    (tmp_path / INDEX_NAME).write_bytes(old)
    with pytest.raises(UnsealError, match="index does not open"):
        open_store(tmp_path)


def test_a_rotation_killed_before_its_index_never_was(tmp_path: Path) -> None:
    with_model(tmp_path)
    old = (tmp_path / INSECURE_KEY_NAME).read_bytes()
    InsecureKeyFile(tmp_path).next_key()
    require_model(tmp_path)
    assert (tmp_path / INSECURE_KEY_NAME).read_bytes() == old


def test_a_rotation_killed_after_its_index_is_done_to_its_end(tmp_path: Path) -> None:
    with_model(tmp_path)
    old = (tmp_path / INSECURE_KEY_NAME).read_bytes()
    rotate(tmp_path)
    new = (tmp_path / INSECURE_KEY_NAME).rename(next_to(tmp_path / INSECURE_KEY_NAME)).read_bytes()
    (tmp_path / INSECURE_KEY_NAME).write_bytes(old)
    require_model(tmp_path)
    assert (tmp_path / INSECURE_KEY_NAME).read_bytes() == new


def test_a_next_key_that_opens_nothing_either_removes_nothing(tmp_path: Path) -> None:
    with_model(tmp_path)
    for key in (tmp_path / INSECURE_KEY_NAME, next_to(tmp_path / INSECURE_KEY_NAME)):
        key.write_bytes(bytes(32))
    with pytest.raises(UnsealError, match="index does not open"):
        open_store(tmp_path)
    assert next_to(tmp_path / INSECURE_KEY_NAME).exists()


@pytest.mark.parametrize("when", ["before it counts", "after it has counted"])
def test_a_rotation_that_the_tee_does_not_count_costs_no_model(tmp_path: Path, when: str) -> None:
    sealer, folder = CountingSealer(), tmp_path / "kept"
    store = open_store(folder, sealer)
    upload(store, "a", b"weights")
    store.close()
    kept = KeptStore(folder, sealer)
    sealer.fails = when
    with pytest.raises(ModelStoreError):
        kept.rotate()
    kept.close()
    sealer.fails = ""
    again = open_store(folder, sealer)
    assert content(again, again.resolve("a")) == {"m.onnx": b"weights"}
    again.close()


def test_the_whole_folder_from_before_a_rotation_is_noticed_where_a_tee_counts(tmp_path: Path) -> None:
    sealer, folder = CountingSealer(), tmp_path / "kept"
    store = open_store(folder, sealer)
    upload(store, "a", b"weights")
    store.close()
    old_index, old_key = (folder / INDEX_NAME).read_bytes(), sealer.root_key()
    kept = KeptStore(folder, sealer)
    kept.rotate()
    kept.close()
    (folder / INDEX_NAME).write_bytes(old_index)
    sealer._key = old_key
    with pytest.raises(UnsealError, match="put back from an older copy"):
        open_store(folder, sealer)


def test_a_disk_that_takes_no_key_leaves_the_old_one(tmp_path: Path) -> None:
    with_model(tmp_path)
    in_the_way = tmp_path / (INSECURE_KEY_NAME + ".next.new")
    in_the_way.mkdir()
    kept = KeptStore(tmp_path, InsecureKeyFile(tmp_path))
    with pytest.raises(ModelStoreError, match="cannot be stored"):
        kept.rotate()
    kept.close()
    shutil.rmtree(in_the_way)
    require_model(tmp_path)


def test_a_rotation_without_a_store_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="nothing to rotate"):
        load_settings(None, {"simulation": True, "rotate_store_key": True})
