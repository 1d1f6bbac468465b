"""`make image-lock`: resolve packages.toml into packages.lock, with today's archive.

`--fetch` only gets what is locked.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

from archive import fetch, resolve_debian, resolve_wheels
from locking import ImageError, read_lock, write_lock

HERE = Path(__file__).parent
LOCK = HERE / "packages.lock"


def main() -> int:
    """Write the lock, or have its files in the cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fetch", metavar="CACHE", type=Path, help="have every locked file in this folder")
    cache = parser.parse_args().fetch
    wanted = tomllib.loads((HERE / "packages.toml").read_text())
    try:
        if cache is not None:
            fetch(read_lock(LOCK), cache, wanted["python"])
        else:
            debs = resolve_debian(wanted["suite"], wanted["debian"])
            write_lock(LOCK, [*debs, *resolve_wheels(HERE.parent, wanted["python"], wanted["wheels"])])
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
