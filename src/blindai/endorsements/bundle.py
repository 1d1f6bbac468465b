"""All that one platform's evidence needs in one file, for where there is no network (docs/spec/endorsements.md §5).

A bundle is a list of questions and their answers; the same answers make the same bytes. It proves nothing by itself:
each document in it is signed by its vendor, and is judged as if it had just been fetched.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.endorsements.documents import Document, Service, read_document
from blindai.endorsements.services import MissingDocumentError
from blindai.errors import EndorsementsUnavailableError
from blindai.wire import base64url_decode, base64url_encode, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from blindai.endorsements.documents import Resource, Source

MAX_BUNDLE_BYTES = 32 << 20
MAX_BUNDLE_DOCUMENTS = 256
BUNDLE_ENDING = ".endorsements.json"
_ENTRY = frozenset({"service", "path", "body", "issuers"})
_ENTRY_OPTIONAL = frozenset({"post"})

_Question = tuple[str, str, bytes]
_Answer = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A source that has what is in it.

    Attributes:
        name: for messages.
        answers: body and issuers for each question: service, path, what is posted.
    """

    name: str
    answers: Mapping[_Question, _Answer] = field(repr=False)

    def get(self, resource: Resource, *, now: float) -> Document:
        """The document, however old: whether that will do is the appraisal's question.

        Raises:
            MissingDocumentError: it is not in here.
            EndorsementsUnavailableError: it is, and is no document of that kind.
        """
        found = self.answers.get(_question(resource))
        if found is None:
            raise MissingDocumentError(
                f"{self.name} has no {resource.service.value}{resource.path}",
                hint="bundles are made for one platform; make one for this one with --save-endorsements FILE",
            )
        try:
            return read_document(resource, found[0], issuers=found[1], now=now)
        except ValueError as error:
            raise EndorsementsUnavailableError(f"{self.name}: {resource.path}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """A source that keeps what passes through it, to make a bundle of."""

    behind: Source
    answers: dict[_Question, _Answer] = field(default_factory=dict, repr=False)

    def get(self, resource: Resource, *, now: float) -> Document:
        """Ask behind, and keep the answer."""
        document = self.behind.get(resource, now=now)
        self.answers[_question(resource)] = (document.body, document.issuers)
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstOf:
    """Several sources, asked in order until one has the document."""

    sources: tuple[Source, ...]

    def get(self, resource: Resource, *, now: float) -> Document:
        """From the first that has it; the last one's word if none has."""
        missing: MissingDocumentError | None = None
        for source in self.sources:
            try:
                return source.get(resource, now=now)
            except MissingDocumentError as error:
                missing = error
        raise missing or MissingDocumentError("there is no source of endorsements")


def encode_bundle(answers: Mapping[_Question, _Answer]) -> bytes:
    """The file: JSON, sorted by service, path and what is posted."""
    documents = [_members(question, answers[question]) for question in sorted(answers)]
    return json.dumps({"version": 1, "documents": documents}, indent=1, sort_keys=True).encode() + b"\n"


def _members(question: _Question, answer: _Answer) -> dict[str, str]:
    service, path, post = question
    members = {
        "service": service,
        "path": path,
        "body": base64url_encode(answer[0]),
        "issuers": base64url_encode(answer[1]),
    }
    return {**members, "post": base64url_encode(post)} if post else members


def parse_bundle(data: bytes, *, name: str) -> Bundle:
    """Read a bundle.

    Raises:
        EndorsementsUnavailableError: more than 32 MiB or 256 documents, or anything but exactly a bundle.
    """
    try:
        members = require_members(strict_json(data, max_bytes=MAX_BUNDLE_BYTES), frozenset({"version", "documents"}))
        if whole_number(members["version"]) != 1:
            raise ValueError("expected version 1")  # noqa: TRY301  # one way to word it
        return Bundle(name=name, answers=_answers(members["documents"]))
    except ValueError as error:
        raise EndorsementsUnavailableError(f"{name} is not a bundle of endorsements: {error}") from None


def _answers(documents: object) -> dict[_Question, _Answer]:
    if not isinstance(documents, list) or len(documents) > MAX_BUNDLE_DOCUMENTS:
        raise ValueError(f"expected a list of at most {MAX_BUNDLE_DOCUMENTS} documents")
    answers = dict(map(_answer, documents))
    if len(answers) != len(documents):
        raise ValueError("a question stands in it twice")
    return answers


def _answer(value: object) -> tuple[_Question, _Answer]:
    members = require_members(value, _ENTRY, _ENTRY_OPTIONAL)
    if members["service"] not in [service.value for service in Service]:
        raise ValueError("a service is one of " + ", ".join(service.value for service in Service))
    question = (members["service"], _text(members["path"]), base64url_decode(members.get("post", "")))
    return question, (base64url_decode(members["body"]), base64url_decode(members["issuers"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a path is text")  # noqa: TRY004  # callers wrap one exception type
    return value


def open_bundles(path: Path) -> Source:
    """A bundle, or a folder of bundles whose names end in `.endorsements.json`.

    Raises:
        EndorsementsUnavailableError: one of them is no bundle, or the folder has none.
        OSError: it cannot be read.
    """
    files = sorted(path.glob(f"*{BUNDLE_ENDING}")) if path.is_dir() else [path]
    if not files:
        raise EndorsementsUnavailableError(
            f"{path} has no file whose name ends in {BUNDLE_ENDING}",
            hint="make one with `blindai verify-evidence … --fetch --save-endorsements FILE`",
        )
    return FirstOf(sources=tuple(_opened(files)))


def _opened(files: Iterable[Path]) -> Iterable[Source]:
    for file in files:
        with file.open("rb") as opened:
            yield parse_bundle(opened.read(MAX_BUNDLE_BYTES + 1), name=file.name)


def _question(resource: Resource) -> _Question:
    return resource.service.value, resource.path, resource.post
