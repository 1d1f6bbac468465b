"""Folders made of locked files, without running one line of a package's scripts.

Needs dpkg-deb, and root for the tools (a chroot in its own mount namespace, which leaves no mount behind).
"""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from locking import Entry, ImageError

if TYPE_CHECKING:
    from pathlib import Path

MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr, as Debian's base-files has them
_ENTER = """
mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && mount -t sysfs -o ro sysfs "$0/sys"
mount -t tmpfs tmpfs "$0/tmp" && mount --bind "$1" "$0/inside"
tools=$0; shift; exec chroot "$tools" "$@"
"""


def unpack_debs(entries: list[Entry], group: str, cache: Path, target: Path) -> None:
    """Lay the files of a set's packages over each other in an empty folder."""
    shutil.rmtree(target, ignore_errors=True)
    for name in MERGED:
        (target / "usr" / name).mkdir(parents=True)
        (target / name).symlink_to(f"usr/{name}")
    for entry in entries:
        if (entry.kind, entry.group) == ("deb", group):
            subprocess.run(["dpkg-deb", "--extract", str(cache / entry.file), str(target)], check=True)


def unpack_wheels(entries: list[Entry], cache: Path, target: Path) -> None:
    """Lay wheels into a folder of Python's path, without their scripts.

    Raises:
        ImageError: a wheel has files for elsewhere than that folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        if entry.kind != "wheel":
            continue
        with zipfile.ZipFile(cache / entry.file) as wheel:
            for name in wheel.namelist():
                if ".data/" in name.partition("/")[0] + "/":
                    if "/scripts/" in name or "/data/" in name:
                        continue
                    raise ImageError(f"{entry.name}: {name} has another place than Python's path")
                wheel.extract(name, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The locked tools, in a root of their own.

    Attributes:
        root: what they see as `/`.
        work: what they see as `/inside`.
    """

    root: Path
    work: Path

    def command(self, *arguments: str) -> list[str]:
        """The host's command line that runs `arguments` inside."""
        return [
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            "-ec",
            _ENTER,
            str(self.root),
            str(self.work),
            *arguments,
        ]

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        """Run a tool in `/inside` and return what it prints.

        Raises:
            ImageError: it fails; its own words are printed before.
        """
        clean = {"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/tmp"}  # noqa: S108
        # What a Python compiles differs by whether its own modules came from a cache (which strings are shared).
        clean |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        inside = ("sh", "-ec", 'cd /inside; umask 022; exec "$@"', "sh", *arguments)
        done = subprocess.run(
            self.command(*inside), env=clean | (environment or {}), stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise ImageError(f"{arguments[0]} failed ({done.returncode}): {done.stdout[-2000:]}")
        return done.stdout


def make_tools(entries: list[Entry], cache: Path, root: Path, work: Path) -> Tools:
    """Unpack the tools, unless those of this very lock are there."""
    tools = Tools(root=root, work=work)
    stamp = root / "locked"
    locked = "".join(f"{entry.sha256}\n" for entry in entries if entry.group == "tools")
    work.mkdir(parents=True, exist_ok=True)
    is_there = stamp.exists() and stamp.read_text() == locked
    if not is_there:
        unpack_debs(entries, "tools", cache, root)
    for name in ("dev", "proc", "sys", "tmp", "inside", "run"):
        (root / name).mkdir(exist_ok=True)
    if not is_there:
        tools.run("ldconfig")
        stamp.write_text(locked)
    return tools
