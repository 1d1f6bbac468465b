"""Files that are there whole or not at all: written beside their place, then put there in one step."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; whoever reads it meanwhile, or after a crash, finds the old one or all of the new one.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    beside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
