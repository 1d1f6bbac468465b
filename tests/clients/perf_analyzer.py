"""Fetches perf_analyzer, Triton's load generator, and runs it: from PyPI, with the libraries of Debian 13.

Its wheel is built against a newer C library than Debian 12 has, so it runs under Debian 13's own loader, from packages
that are unpacked into a folder: no root, and nothing of the system changes. Each package is compared with the archive's
index; the index comes over HTTP and its signature is not looked at, so run this where you would run strange code.

    python tests/clients/perf_analyzer.py FOLDER [perf_analyzer's arguments ...]
"""

from __future__ import annotations

import hashlib
import lzma
import os
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

VERSION = "2.60.0"
ARCHIVE = "http://deb.debian.org/debian"
INDEX = f"{ARCHIVE}/dists/trixie/main/binary-amd64/Packages.xz"
PACKAGES = ("libc6", "libstdc++6", "libgcc-s1", "libssl3t64", "zlib1g", "libzstd1")
PLATFORM = "manylinux_2_38_x86_64"


def fetch(folder: Path) -> Path:
    """Put perf_analyzer and its libraries into a folder, unless they are there; the path of its start script."""
    script = folder / "perf_analyzer"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _fetch_libraries(folder)
        binary = _fetch_binary(folder)
        loader = next((folder / "root").glob("**/ld-linux-x86-64.so.2"))
        libraries = folder / "root/usr/lib/x86_64-linux-gnu"
        script.write_text(f'#!/bin/sh\nexec "{loader}" --library-path "{libraries}" "{binary}" "$@"\n')
        script.chmod(0o755)
    return script


def _fetch_binary(folder: Path) -> Path:
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--only-binary=:all:", "--platform", PLATFORM]
    subprocess.run([*pip, "-d", str(wheels), f"perf-analyzer=={VERSION}"], check=True)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extract("perf_analyzer/bin/perf_analyzer", folder)
    binary = folder / "perf_analyzer_bin"
    (folder / "perf_analyzer").rename(folder / "unpacked")
    (folder / "unpacked/bin/perf_analyzer").rename(binary)
    binary.chmod(0o755)
    return binary


def _fetch_libraries(folder: Path) -> None:
    index = lzma.decompress(_get(INDEX)).decode()
    for paragraph in index.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") in PACKAGES:
            package = folder / Path(fields["Filename"]).name
            package.write_bytes(_get(f"{ARCHIVE}/{fields['Filename']}", sha256=fields["SHA256"]))
            subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)


def _get(url: str, *, sha256: str = "") -> bytes:
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310  # a fixed address of Debian's archive
        data: bytes = answer.read()
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(f"{url} is not what the index says")
    return data


if __name__ == "__main__":
    program = fetch(Path(sys.argv[1]).resolve())
    os.execv(program, [str(program), *sys.argv[2:]])  # noqa: S606  # what this script is for
