"""What the first and last frames say: request head, response head and trailer (docs/spec/sealed.md §3, §4).

Heads are JSON read strictly: unknown, missing or repeated members are refused. Dispatch is only ever from the head.
`_Request` and `_Response` say what JSON allows in them, and the parsers what it cannot say.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from blindai.channel.frames import MAX_DATA_BYTES, MAX_HEAD_BYTES
from blindai.errors import SealedMessageError
from blindai.wire import (
    JSON_INTEGER_LIMIT,
    base64url_encode,
    compact_json,
    exact_bytes,
    length_prefixed,
    require_members,
    strict_json,
    strict_struct,
)

REQUEST_ID_BYTES = 16
SALT_BYTES = 32
FULL_DIGEST_BYTES = 32
_PATH = re.compile(r"/[\x21-\x7e]{0,2047}\Z")
_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}\Z")
_MAX_VALUE = 8192
_MAX_HEADERS = 32

Headers = tuple[tuple[str, str], ...]
_Whole = Annotated[int, Meta(ge=0, le=JSON_INTEGER_LIMIT)]


class RequestHead(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # one a request: cheaper than a dataclass
    """Frame 0 of a request.

    Attributes:
        request_id: the client's 16 random bytes; the receipt repeats them.
        headers: (lower-case name, value) pairs, each name once.
        padded: whether bodies are padded; the receipt says so.
        wants_receipt: whether the answer must carry one.
        salt: 32 random bytes under which the receipt commits to both bodies.
        opens_session: whether the client wishes a session (one-shot requests only).
        at_ms: milliseconds since the session's opening (requests in a session only).
    """

    request_id: bytes
    method: str
    path: str
    headers: Headers = ()
    content_type: str = ""
    padded: bool = True
    wants_receipt: bool = True
    salt: bytes
    opens_session: bool = False
    at_ms: int | None = None

    def __repr__(self) -> str:
        """Without salt and headers, which nobody may read in a log."""
        return f"RequestHead(method={self.method!r}, path={self.path!r}, at_ms={self.at_ms!r})"

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return _value(self.headers, name)

    def encode(self) -> bytes:
        """The bytes of frame 0."""
        return compact_json(
            _Request(
                id=base64url_encode(self.request_id),
                method=self.method,  # type: ignore[arg-type]  # who reads it refuses any other
                path=self.path,
                headers=dict(self.headers),
                content_type=self.content_type,
                padding="padme" if self.padded else "none",
                receipt=self.wants_receipt,
                salt=base64url_encode(self.salt),
                session=self.opens_session,
                at_ms=UNSET if self.at_ms is None else self.at_ms,
            )
        )


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The members of a request's head, as JSON types."""

    at_ms: _Whole | UnsetType = UNSET
    content_type: str
    headers: dict[str, str]
    id: str
    method: Literal["GET", "POST", "DELETE"]
    padding: Literal["padme", "none"]
    path: str
    receipt: bool
    salt: str
    session: bool


_request_decoder = msgspec.json.Decoder(_Request)


def parse_request_head(data: bytes) -> RequestHead:
    """Read frame 0 of a request.

    Raises:
        SealedMessageError: anything but exactly a request head.
    """
    try:
        members = strict_struct(_request_decoder, data, max_bytes=MAX_HEAD_BYTES)
        return RequestHead(
            request_id=exact_bytes(members.id, REQUEST_ID_BYTES),
            method=members.method,
            path=_path(members.path),
            headers=_headers(members.headers),
            content_type=_header_value(members.content_type),
            padded=members.padding == "padme",
            wants_receipt=members.receipt,
            salt=exact_bytes(members.salt, SALT_BYTES),
            opens_session=members.session,
            at_ms=None if members.at_ms is UNSET else members.at_ms,
        )
    except ValueError as error:
        raise SealedMessageError(f"the request's head is malformed: {error}") from None


class SessionGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """How long a session lives, and how long it may stay idle, in seconds."""

    lifetime_s: _Whole
    idle_s: _Whole


class ResponseHead(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # one an answer
    """Frame 0 of an answer."""

    status: int
    headers: Headers = ()
    session: SessionGrant | None = None

    def __repr__(self) -> str:
        """Without the headers."""
        return f"ResponseHead(status={self.status}, session={self.session!r})"

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return _value(self.headers, name)

    def encode(self) -> bytes:
        """The bytes of frame 0."""
        return compact_json(_Response(status=self.status, headers=dict(self.headers), session=self.session or UNSET))


class _Response(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The members of an answer's head, as JSON types."""

    headers: dict[str, str]
    session: SessionGrant | UnsetType = UNSET
    status: Annotated[int, Meta(ge=200, le=599)]


_response_decoder = msgspec.json.Decoder(_Response)


def parse_response_head(data: bytes) -> ResponseHead:
    """Read frame 0 of an answer.

    Raises:
        SealedMessageError: anything but exactly a response head.
    """
    try:
        members = strict_struct(_response_decoder, data, max_bytes=MAX_HEAD_BYTES)
        session = None if members.session is UNSET else members.session
        return ResponseHead(status=members.status, headers=_headers(members.headers), session=session)
    except ValueError as error:
        raise SealedMessageError(f"the answer's head is malformed: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class WireError:
    """An error as it crosses the channel; `code` names a class of `blindai.errors`."""

    code: str
    message: str
    hint: str = ""

    def encode(self) -> bytes:
        """Its JSON form, also used as the body of an answer with a status of 400 or more."""
        return compact_json({"error": self.message, "code": self.code, "hint": self.hint})


def parse_wire_error(data: bytes) -> WireError:
    """Read an error.

    Raises:
        SealedMessageError: anything but exactly an error.
    """
    try:
        members = require_members(strict_json(data, max_bytes=MAX_HEAD_BYTES), frozenset({"error", "code", "hint"}))
        return WireError(
            code=_string(members["code"]), message=_string(members["error"]), hint=_string(members["hint"])
        )
    except ValueError as error:
        raise SealedMessageError(f"the answer's error is malformed: {error}") from None


class Trailer(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # one an answer
    """The last frame of an answer: `u8 complete ‖ F ‖ LP(receipt) ‖ LP(error)`."""

    request_digest: bytes | None
    receipt: str = ""
    error: WireError | None = None

    @property
    def complete(self) -> bool:
        """Whether the server read the request to its end."""
        return self.request_digest is not None

    def encode(self) -> bytes:
        """The data of the last frame."""
        digest = self.request_digest or bytes(FULL_DIGEST_BYTES)
        error = self.error.encode() if self.error else b""
        return bytes([self.complete]) + digest + length_prefixed(self.receipt.encode()) + length_prefixed(error)


def parse_trailer(data: bytes) -> Trailer:
    """Read the last frame of an answer.

    Raises:
        SealedMessageError: trailing bytes, or anything but exactly a trailer.
    """
    complete, digest = data[:1], data[1 : 1 + FULL_DIGEST_BYTES]
    receipt, rest = _take(data[1 + FULL_DIGEST_BYTES :])
    error, rest = _take(rest)
    if complete not in (b"\0", b"\1") or rest or (complete == b"\0" and any(digest)) or not receipt.isascii():
        raise SealedMessageError("the answer's trailer is malformed")
    return Trailer(
        request_digest=digest if complete == b"\1" else None,
        receipt=receipt.decode("ascii"),
        error=parse_wire_error(error) if error else None,
    )


def _take(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 or size > min(len(data) - 4, MAX_DATA_BYTES):  # noqa: PLR2004  # a u32 length
        raise SealedMessageError("the answer's trailer is malformed")
    return data[4 : 4 + size], data[4 + size :]


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")  # noqa: TRY004  # callers wrap one exception type
    return value


def _value(headers: Headers, name: str) -> str | None:
    for found, value in headers:
        if found == name:
            return value
    return None


@functools.lru_cache(maxsize=256)  # those of the models that are asked
def _path(text: str) -> str:
    if not _PATH.match(text):
        raise ValueError("the path has characters or a length that are not allowed there")
    return text


def _headers(members: dict[str, str]) -> Headers:
    if len(members) > _MAX_HEADERS:
        raise ValueError(f"expected an object of at most {_MAX_HEADERS} headers")
    for name, value in members.items():
        _header_name(name)
        _header_value(value)
    return tuple(members.items())


@functools.lru_cache(maxsize=256)  # the same few in all heads
def _header_name(text: str) -> None:
    if not _HEADER_NAME.match(text):
        raise ValueError("a header's name has characters or a length that are not allowed there")


def _header_value(text: str) -> str:
    """Printable ASCII, space included."""
    if len(text) > _MAX_VALUE or not text.isascii() or not text.isprintable():
        raise ValueError("a header's value has characters or a length that are not allowed there")
    return text
