"""Documents on disk, kept until the issuer's next update and not longer (docs/spec/endorsements.md §4).

Two folders, as git has them: `objects` holds bodies under their SHA-256, `index` says for each question which object
answers it and until when. Files are written beside and renamed, and readable by their owner only. What is damaged,
foreign or ended counts as not there. Leaves out: what a document means.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.endorsements.documents import MAX_DOCUMENT_BYTES, Document
from blindai.endorsements.services import MissingDocumentError
from blindai.errors import EndorsementsUnavailableError
from blindai.wire import compact_json, length_prefixed, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from pathlib import Path

    from blindai.endorsements.documents import Resource, Source

_MAX_ENTRY_BYTES = 4096
_ENTRY = frozenset({"version", "service", "path", "body", "issuers", "expires_at"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A source that remembers what another one answered.

    Attributes:
        folder: made at need, for its owner only.
        behind: who is asked for what is not here any more.
        grace_s: how many seconds past its end a document is still given if `behind` cannot be reached; 0 gives none.
            The appraisal still sees that it has ended, and needs a policy with a grace of its own.
    """

    folder: Path
    behind: Source
    grace_s: float = 0.0

    def get(self, resource: Resource, *, now: float) -> Document:
        """From disk while it holds, else from behind.

        Raises:
            EndorsementsUnavailableError: behind has no answer, and no document here is within the grace.
        """
        kept = self._read(resource)
        if kept is not None and now < kept.expires_at:
            return kept
        try:
            document = self.behind.get(resource, now=now)
        except MissingDocumentError:
            raise
        except EndorsementsUnavailableError:
            if kept is not None and now < kept.expires_at + self.grace_s:
                return kept
            raise
        with contextlib.suppress(OSError):  # a cache that cannot be written is slow, and no reason to fail
            self._write(resource, document)
        return document

    def _read(self, resource: Resource) -> Document | None:
        try:
            entry = require_members(strict_json(self._entry(resource), max_bytes=_MAX_ENTRY_BYTES), _ENTRY)
            if (entry["version"], entry["service"], entry["path"]) != (1, resource.service.value, resource.path):
                return None
            return Document(
                body=self._object(entry["body"]),
                issuers=self._object(entry["issuers"]),
                expires_at=float(whole_number(entry["expires_at"])),
            )
        except (OSError, ValueError):
            return None

    def _entry(self, resource: Resource) -> bytes:
        with (self.folder / "index" / _key(resource)).open("rb") as file:
            return file.read(_MAX_ENTRY_BYTES + 1)

    def _object(self, name: object) -> bytes:
        if not isinstance(name, str) or len(name) != 2 * hashlib.sha256().digest_size or not name.isalnum():
            raise ValueError("not the name of an object")
        with (self.folder / "objects" / name).open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
        if hashlib.sha256(data).hexdigest() != name:
            raise ValueError("another object than its name says")
        return data

    def _write(self, resource: Resource, document: Document) -> None:
        for folder in (self.folder, self.folder / "objects", self.folder / "index"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for data in (document.body, document.issuers):
            write_private(self.folder / "objects" / hashlib.sha256(data).hexdigest(), data)
        entry = {
            "version": 1,
            "service": resource.service.value,
            "path": resource.path,
            "body": hashlib.sha256(document.body).hexdigest(),
            "issuers": hashlib.sha256(document.issuers).hexdigest(),
            "expires_at": int(document.expires_at),
        }
        write_private(self.folder / "index" / _key(resource), compact_json(entry))


def _key(resource: Resource) -> str:
    """The question's name on disk; no part of it can lead elsewhere."""
    parts = (resource.service.value.encode(), resource.path.encode(), resource.post)
    return hashlib.sha256(b"".join(map(length_prefixed, parts))).hexdigest()


def write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and readable by its owner only."""
    beside = path.with_name(f".{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
