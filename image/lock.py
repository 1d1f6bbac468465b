"""`make image-lock`: resolve packages.toml into packages.lock, with today's archive."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from archive import resolve_debian, resolve_wheels
from locking import ImageError, write_lock

HERE = Path(__file__).parent


def main() -> int:
    """Write the lock."""
    wanted = tomllib.loads((HERE / "packages.toml").read_text())
    try:
        debs = resolve_debian(wanted["suite"], wanted["debian"])
        write_lock(HERE / "packages.lock", [*debs, *resolve_wheels(HERE.parent, wanted["python"], wanted["wheels"])])
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
