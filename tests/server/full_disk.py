"""A store on a disk that is full: run as a script with a folder on a small file system, which it fills whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from server.store_life import open_store
from server.test_model_store import upload

from blindai.errors import ModelStoreError
from blindai.server.sharing import Share


def fill(path: Path) -> None:
    """Take what is left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError:
        os.close(descriptor)


def main(folder: Path) -> None:
    """Fill it, delete everything, and find nothing after a restart."""
    store = open_store(folder / "kept")
    refused = ""
    while not refused:
        try:
            upload(store, f"m{len(store.models())}", os.urandom(40_000))
        except ModelStoreError as error:
            refused = str(error)
    store.share("public", "m0", Share(run=frozenset({"x"})))
    fill(folder / "filler")
    print(f"{refused}; {len(store.models())} models, {os.statvfs(folder).f_bavail} blocks free")
    (folder / "filler2").touch()
    store.share("public", "m0", Share())
    for model in store.models():
        fill(folder / "filler2")
        store.delete(model.name)
    store.close()
    again = open_store(folder / "kept")
    print(f"{len(again.models())} models, {len(list((folder / 'kept/files').iterdir()))} files")
    upload_refused = ""
    fill(folder / "filler2")
    try:
        upload(again, "new", b"weights")
    except ModelStoreError as error:
        upload_refused = str(error)
    print(upload_refused)
    again.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
