"""A store's key in a real TPM (swtpm) that is exchanged for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from server.test_model_store import content, upload

from blindai.attester.sealing import next_to
from blindai.attester.tpm2.sealer import KEY_NAME, TpmSealer
from blindai.errors import UnsealError
from blindai.server.kept_store import INDEX_NAME, KeptStore
from blindai.server.model_store import ModelStore

if TYPE_CHECKING:
    from pathlib import Path

    from tpm.software_tpm import SoftwareTpm

pytestmark = pytest.mark.swtpm


def open_store(folder: Path, tpm: SoftwareTpm) -> ModelStore:
    return ModelStore(folder, kept=KeptStore(folder, TpmSealer(folder, tpm)))


def with_model(folder: Path, tpm: SoftwareTpm) -> tuple[bytes, bytes]:
    """Key and index of before the rotation, and the store rotated."""
    store = open_store(folder, tpm)
    upload(store, "a", b"weights")
    store.close()
    before = (folder / KEY_NAME).read_bytes(), (folder / INDEX_NAME).read_bytes()
    kept = KeptStore(folder, TpmSealer(folder, tpm))
    kept.rotate()
    kept.close()
    return before


def test_models_survive_and_the_old_key_opens_nothing_that_is_kept(tpm: SoftwareTpm, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    old_key, old_index = with_model(folder, tpm)
    tpm.stop()
    tpm.start()
    store = open_store(folder, tpm)
    assert content(store, store.resolve("a")) == {"m.onnx": b"weights"}
    store.close()
    (folder / KEY_NAME).write_bytes(old_key)
    with pytest.raises(UnsealError, match="index does not open"):
        open_store(folder, tpm)
    (folder / INDEX_NAME).write_bytes(old_index)
    with pytest.raises(UnsealError, match="put back from an older copy"):
        open_store(folder, tpm)


def test_a_rotation_killed_after_its_index_is_done_to_its_end(tpm: SoftwareTpm, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    old_key, _ = with_model(folder, tpm)
    (folder / KEY_NAME).rename(next_to(folder / KEY_NAME))
    (folder / KEY_NAME).write_bytes(old_key)
    store = open_store(folder, tpm)
    assert content(store, store.resolve("a")) == {"m.onnx": b"weights"}
    store.close()
    assert not next_to(folder / KEY_NAME).exists()


def test_another_kernel_cannot_plant_a_next_key(tpm: SoftwareTpm, tmp_path: Path) -> None:
    """What it seals is known by the PCRs at that time, as for the first key."""
    folder = tmp_path / "kept"
    with_model(folder, tpm)
    other = tmp_path / "other"
    other.mkdir()
    tpm.extend(11, b"the operator's own" + bytes(14))
    TpmSealer(other, tpm).root_key()
    tpm.stop()
    tpm.start()
    (other / KEY_NAME).rename(next_to(folder / KEY_NAME))
    index = (folder / INDEX_NAME).read_bytes()
    (folder / INDEX_NAME).write_bytes(index[:-1] + bytes([index[-1] ^ 1]))
    with pytest.raises(UnsealError, match="something else has booted"):
        open_store(folder, tpm)
    (folder / INDEX_NAME).write_bytes(index)
    store = open_store(folder, tpm)
    assert content(store, store.resolve("a")) == {"m.onnx": b"weights"}
    store.close()
