"""The lock list packages.lock: exactly which Debian packages and wheels an image and its tools are made of.

One line for each: kind, set, name, version, SHA-256 and where the archive has it (`-`: where pip finds it). Sorted,
so that a change of the lock reads as what changed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = "# kind set name version sha256 uri; written by `make image-lock`, not by hand\n"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_SUFFIXES = {"deb": ".deb", "wheel": ".whl"}


class ImageError(Exception):
    """The image cannot be made or is another one; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Entry:
    """One locked file.

    Attributes:
        kind: `deb` or `wheel`.
        group: the set of packages.toml that it is for.
        sha256: of the file, 64 lower-case hexadecimal digits.
        uri: of a deb; `-` for a wheel.
    """

    kind: str
    group: str
    name: str
    version: str
    sha256: str
    uri: str

    @property
    def file(self) -> str:
        """Its name in the cache."""
        return self.sha256 + _SUFFIXES[self.kind]


def write_lock(path: Path, entries: list[Entry]) -> None:
    """Write the lock list, sorted."""
    lines = [f"{e.kind} {e.group} {e.name} {e.version} {e.sha256} {e.uri}\n" for e in sorted(entries)]
    path.write_text(_HEAD + "".join(lines), encoding="ascii")


def read_lock(path: Path) -> list[Entry]:
    """Read the lock list.

    Raises:
        ImageError: a line that `write_lock` does not write.
    """
    head, *lines = path.read_text(encoding="ascii").splitlines()
    if head + "\n" != _HEAD:
        raise ImageError(f"{path}: not a lock list; run `make image-lock`")
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=2)]


def _parse(line: str, where: str) -> Entry:
    parts = line.split(" ")
    if len(parts) != len(Entry.__slots__) or parts[0] not in _SUFFIXES or not _DIGEST.match(parts[4]):
        raise ImageError(f"{where}: expected `kind set name version sha256 uri`")
    kind, group, name, version, sha256, uri = parts
    return Entry(kind=kind, group=group, name=name, version=version, sha256=sha256, uri=uri)
