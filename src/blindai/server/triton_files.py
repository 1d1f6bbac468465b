"""The folders and files of a model repository, read without ever leaving it, and what is found wrong with them.

A symbolic link may point anywhere inside the repository; one that leads out of it is a problem, not an error that
stops the reading: whoever prepares a repository wants to hear of all its mistakes at once.
Leaves out: what the files mean (`triton_repository`, `triton_config`).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.bundle import FILE_PATH
from blindai.errors import InvalidSettingsError
from blindai.server.log import LOG

if TYPE_CHECKING:
    from pathlib import Path

MAX_SHOWN = 100


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is wrong with a repository, and what is read without effect.

    Attributes:
        problems: each a line; any of them and the server does not start.
        warnings: each a line for the log.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, where: str, what: str, hint: str = "") -> None:
        """Something that cannot be served as it is written."""
        self.problems.append(f"{where}: {what}{f' ({hint})' if hint else ''}")

    def ignore(self, where: str, what: str) -> None:
        """Something that is read and has no effect here."""
        self.warnings.append(f"{where}: parsed and ignored: {what}")

    def settle(self, directory: Path | str) -> None:
        """Log the warnings; then go on, or not.

        Raises:
            InvalidSettingsError: with every problem.
        """
        for warning in self.warnings:
            LOG.warning("model repository: %s", warning)
        self.warnings.clear()
        if not self.problems:
            return
        shown = self.problems[:MAX_SHOWN]
        more = [f"… and {len(self.problems) - MAX_SHOWN} more"] if len(self.problems) > MAX_SHOWN else []
        noun = "problem" if len(self.problems) == 1 else "problems"
        raise InvalidSettingsError(
            f"the model repository {directory} has {len(self.problems)} {noun}:\n  " + "\n  ".join([*shown, *more]),
            hint="nothing is served until all of it can be (docs/guides/model-repository.md)",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFolder:
    """A folder of the repository.

    Attributes:
        root: the repository itself, without symbolic links.
        path: this folder.
        findings: where problems go.
    """

    root: Path
    path: Path
    findings: Findings

    @property
    def name(self) -> str:
        """As problems call it: its path inside the repository."""
        return str(self.path.relative_to(self.root)) if self.path != self.root else "."

    def where(self, name: str) -> str:
        """As problems call a file in it."""
        return name if self.path == self.root else f"{self.name}/{name}"

    def folder(self, name: str) -> RepositoryFolder:
        """A folder in it."""
        return RepositoryFolder(root=self.root, path=self.path / name, findings=self.findings)

    def entries(self) -> tuple[list[str], list[str]]:
        """The names of its folders and of its files; hidden ones are left out."""
        folders: list[str] = []
        files: list[str] = []
        try:
            names = sorted(entry.name for entry in self.path.iterdir())
        except OSError as error:
            self.findings.refuse(self.name, f"cannot be read: {error.strerror}")
            return [], []
        for name in names:
            if name.startswith("."):
                self.findings.ignore(self.where(name), "a hidden file or folder")
                continue
            place = self._inside(name)
            if place is not None:
                (folders if place.is_dir() else files).append(name)
        return folders, files

    def open(self, name: str) -> int | None:
        """A descriptor of a regular file in it, or `None` and a problem."""
        if not FILE_PATH.match(name):
            self.findings.refuse(self.where(name), "not a file name that can be used", _NAMES)
            return None
        place = self._inside(name)
        if place is None:
            return None
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            self.findings.refuse(self.where(name), f"cannot be read: {error.strerror}")
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            self.findings.refuse(self.where(name), "not a file")
            return None
        return descriptor

    def read(self, name: str, most: int) -> bytes | None:
        """A short file whole, or `None` and a problem."""
        descriptor = self.open(name)
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            self.findings.refuse(self.where(name), f"has more than {most} bytes")
            return None
        return content

    def _inside(self, name: str) -> Path | None:
        """Where an entry really lies, if that is inside the repository."""
        try:
            place = (self.path / name).resolve(strict=True)
        except (OSError, RuntimeError):
            self.findings.refuse(self.where(name), "not there, or a symbolic link to nothing")
            return None
        if not place.is_relative_to(self.root):
            self.findings.refuse(
                self.where(name), "a symbolic link that leaves the repository", "copy what it points to into it"
            )
            return None
        return place


_NAMES = "letters, digits, '.', '_' or '-', the first no '.' or '-', and no folders"
