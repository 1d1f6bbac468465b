"""A full disk: what is kept can be deleted, and nothing is taken in that could not be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from server.store_life import open_store
from server.test_model_store import content, upload

from blindai.errors import ModelNotFoundError, ModelStoreError
from blindai.server.index_reserve import RESERVE_NAME
from blindai.server.kept_store import INDEX_NAME
from blindai.server.model_config import ServingConfig

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).with_name("full_disk.py")
IN_OWN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNTED = 'mount -t tmpfs -o size=512k tmpfs "$0" && exec "$@" "$0"'


def full(names: set[str]) -> Callable[[int], None]:
    """An operating system that has no room for files of these names, and says so when they are synchronised."""
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    return refusing


def test_what_is_kept_can_be_deleted_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    upload(store, "a", b"one")
    upload(store, "b", b"two")
    monkeypatch.setattr(os, "fsync", full({"index.new"}))
    store.delete("a")
    with pytest.raises(ModelNotFoundError):
        store.resolve("a")
    store.close()
    again = open_store(tmp_path)
    assert content(again, again.resolve("b")) == {"m.onnx": b"two"}
    again.delete("b")
    again.close()
    assert {path.name for path in tmp_path.iterdir()} >= {INDEX_NAME, RESERVE_NAME}
    assert not (tmp_path / "index.new").exists()


def test_a_larger_index_does_not_take_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    model = upload(store, "a", b"one")
    monkeypatch.setattr(os, "fsync", full({"index.new"}))
    with pytest.raises(ModelStoreError, match="No space left"):
        store.reconfigure(model, ServingConfig(labels=(("out", ("x" * 9000,)),)))
    store.delete("a")
    store.close()


def test_without_room_for_a_reserve_nothing_larger_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = open_store(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", refuses)
    with pytest.raises(ModelStoreError, match="No space left"):
        upload(store, "a", b"one")
    assert store.models() == ()
    store.close()


def test_a_link_in_the_reserves_place_leads_nowhere(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "kept"
    precious.write_bytes(b"precious" * 9000)
    store = open_store(folder)
    (folder / RESERVE_NAME).symlink_to(precious)
    upload(store, "a", b"one")
    store.close()
    assert not (folder / RESERVE_NAME).is_symlink()
    assert precious.read_bytes() == b"precious" * 9000


def test_a_real_file_system_filled_to_the_last_byte(tmp_path: Path) -> None:
    """A tmpfs of 512 KiB in a mount namespace of its own, which needs no root where users may make one."""
    tried = [*IN_OWN_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if subprocess.run(tried, check=False, capture_output=True).returncode:
        pytest.skip("a user may not mount a file system here: the real full disk was NOT tried")
    command = [*IN_OWN_NAMESPACE, "sh", "-c", MOUNTED, str(tmp_path), sys.executable, str(SCRIPT)]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=here).stdout.splitlines()
    assert told[0].startswith("the model cannot be stored: No space left on device; ")
    assert told[0].endswith(" 0 blocks free")
    assert told[1] == "0 models, 0 files"
    assert told[2] == "the model cannot be stored: No space left on device"
    print(told[0])
