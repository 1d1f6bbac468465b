"""Debian's archive and PyPI, asked by their own clients: what a list of packages resolves to, and the files of a lock.

Needs apt and pip on the host; the host's own sources and packages have no say. Downloads are kept in a folder by
digest, so that a build needs the network once. Leaves out: who signs wheels; the lock says their digests.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

from locking import Entry, ImageError

ARCHIVE = "http://deb.debian.org"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_DROPPED = "the archive no longer has a locked version, or has other bytes: run `make image-lock`"


def resolve_debian(suite: str, sets: dict[str, dict[str, list[str]]]) -> list[Entry]:
    """The packages of each set with their dependencies, newest versions of the suite and its security updates.

    Raises:
        ImageError: apt fails; its own words are printed before.
    """
    with tempfile.TemporaryDirectory() as name:
        options = _apt_options(Path(name), suite)
        _run(["apt-get", *options, "-qq", "update"])
        return [entry for group in sets for entry in _closure(options, group, **sets[group])]


def _apt_options(folder: Path, suite: str) -> list[str]:
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "cache/archives/partial").mkdir(parents=True)
    pockets = ((suite, "debian"), (f"{suite}-updates", "debian"), (f"{suite}-security", "debian-security"))
    lines = [f"deb [arch=amd64 signed-by={KEYRING}] {ARCHIVE}/{path} {pocket} main\n" for pocket, path in pockets]
    (folder / "sources.list").write_text("".join(lines))
    values = {
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",  # as if nothing were installed: the host's packages have no say
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Install-Recommends": "false",
        "Acquire::ForceHash": "SHA256",
        "Acquire::Languages": "none",
    }
    return [part for key, value in values.items() for part in ("-o", f"{key}={value}")]


def _closure(options: list[str], group: str, install: list[str], only: list[str] | None = None) -> list[Entry]:
    printed = _run(["apt-get", *options, "-qq", "install", "--yes", "--print-uris", *install])
    entries = [_entry(group, line) for line in printed.splitlines() if line.startswith("'")]
    return [entry for entry in entries if only is None or any(fnmatch(entry.name, pattern) for pattern in only)]


def _entry(group: str, line: str) -> Entry:
    """One line of `--print-uris`: 'URI' FILE SIZE SHA256:DIGEST."""
    uri, file, _, digest = line.split(" ")
    name, version, _ = unquote(file).split("_")
    return Entry(
        kind="deb", group=group, name=name, version=version, sha256=digest.removeprefix("SHA256:"), uri=uri[1:-1]
    )


def resolve_wheels(project: Path, python: str, extras: list[str]) -> list[Entry]:
    """The wheels that the project's extras need, in the versions of constraints.txt."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        _run([
            *_pip("install", python), "--dry-run", "--ignore-installed",
            f"--target={name}/target", f"--report={report}",
            f"--constraint={project / 'constraints.txt'}", f"{project}[{','.join(extras)}]",
        ])  # fmt: skip
        installed = json.loads(report.read_text())["install"]
    return [
        Entry(
            kind="wheel",
            group="root",
            name=item["metadata"]["name"].lower().replace("_", "-"),
            version=item["metadata"]["version"],
            sha256=item["download_info"]["archive_info"]["hashes"]["sha256"],
            uri="-",
        )
        for item in installed
        if "archive_info" in item["download_info"]  # the project itself is a folder, and no download
    ]


def _pip(verb: str, python: str) -> list[str]:
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    fixed = [
        "--quiet",
        "--implementation=cp",
        f"--python-version={python}",
        f"--abi=cp{python.replace('.', '')}",
        "--abi=abi3",
    ]
    return [sys.executable, "-m", "pip", verb, *fixed, "--abi=none", "--only-binary=:all:", *platforms]


def fetch(entries: list[Entry], cache: Path, python: str) -> None:
    """Have the file of every entry in `cache`, by digest, each verified now.

    Raises:
        ImageError: a file is no longer offered, or is another one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = {entry.sha256: entry for entry in entries if not _is_there(cache, entry)}
    debs = [entry for entry in missing.values() if entry.kind == "deb"]
    wheels = [entry for entry in missing.values() if entry.kind == "wheel"]
    if debs:
        triples = [part for one in debs for part in (one.uri, str(cache / one.file), f"SHA256:{one.sha256}")]
        _run(["/usr/lib/apt/apt-helper", "-qq", "download-file", *triples], hint=_DROPPED)
    if wheels:
        _fetch_wheels(wheels, cache, python)
    for entry in entries:
        if not _is_there(cache, entry):
            raise ImageError(f"{entry.name} {entry.version}: {_DROPPED}")


def _fetch_wheels(wheels: list[Entry], cache: Path, python: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        requirements = Path(name) / "requirements.txt"
        requirements.write_text("".join(f"{one.name}=={one.version} --hash=sha256:{one.sha256}\n" for one in wheels))
        _run(
            [
                *_pip("download", python),
                "--no-deps",
                "--require-hashes",
                f"--dest={name}",
                f"--requirement={requirements}",
            ],
            hint=_DROPPED,
        )
        for wheel in Path(name).glob("*.whl"):
            data = wheel.read_bytes()
            (cache / f"{hashlib.sha256(data).hexdigest()}.whl").write_bytes(data)


def _is_there(cache: Path, entry: Entry) -> bool:
    file = cache / entry.file
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == entry.sha256


def _run(command: list[str], hint: str = "") -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ImageError(f"{Path(command[0]).name} failed{': ' + hint if hint else ''}")
    return done.stdout
