"""What the first and last frames say: request head, response head and trailer (docs/spec/sealed.md §3, §4).

Heads are JSON read strictly: unknown, missing or repeated members are refused. Dispatch is only ever from the head.
A head in this project's own compact form is read fast: it is the bytes that its values would be written as, so nothing
can be repeated or hidden in it. Any other form goes through `strict_json`, which says what is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from blindai.channel.frames import MAX_DATA_BYTES, MAX_HEAD_BYTES
from blindai.errors import SealedMessageError
from blindai.wire import (
    JSON_INTEGER_LIMIT,
    base64url_encode,
    boolean,
    compact_json,
    exact_bytes,
    length_prefixed,
    require_members,
    strict_json,
    whole_number,
)

REQUEST_ID_BYTES = 16
SALT_BYTES = 32
FULL_DIGEST_BYTES = 32
_METHODS = frozenset({"GET", "POST", "DELETE"})
_PATH = re.compile(r"/[\x21-\x7e]{0,2047}\Z")
_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}\Z")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,8192}\Z")
_MAX_HEADERS = 32
_STATUS = range(200, 600)
_PADDINGS = frozenset({"padme", "none"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
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
    headers: tuple[tuple[str, str], ...] = field(repr=False, default=())
    content_type: str = ""
    padded: bool = True
    wants_receipt: bool = True
    salt: bytes = field(repr=False)
    opens_session: bool = False
    at_ms: int | None = None

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return next((value for found, value in self.headers if found == name), None)

    def encode(self) -> bytes:
        """The bytes of frame 0."""
        members: dict[str, Any] = {
            "id": base64url_encode(self.request_id),
            "method": self.method,
            "path": self.path,
            "headers": dict(self.headers),
            "content_type": self.content_type,
            "padding": "padme" if self.padded else "none",
            "receipt": self.wants_receipt,
            "salt": base64url_encode(self.salt),
            "session": self.opens_session,
        }
        if self.at_ms is not None:
            members["at_ms"] = self.at_ms
        return compact_json(members)


_Whole = Annotated[int, Meta(ge=0, le=JSON_INTEGER_LIMIT)]


class _Request(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of a request's head, as JSON types."""

    content_type: str
    headers: dict[str, str]
    id: str
    method: str
    padding: str
    path: str
    receipt: bool
    salt: str
    session: bool
    at_ms: _Whole | UnsetType = UNSET


_REQUEST_MEMBERS = frozenset(_Request.__struct_fields__) - {"at_ms"}


def parse_request_head(data: bytes) -> RequestHead:
    """Read frame 0 of a request.

    Raises:
        SealedMessageError: anything but exactly a request head.
    """
    try:
        members = _compact(_request_decoder, data) or _strict_request(data)
        return RequestHead(
            request_id=exact_bytes(members.id, REQUEST_ID_BYTES),
            method=_one_of(members.method, _METHODS),
            path=_matching(members.path, _PATH),
            headers=_headers(members.headers),
            content_type=_matching(members.content_type, _HEADER_VALUE),
            padded=_one_of(members.padding, _PADDINGS) == "padme",
            wants_receipt=members.receipt,
            salt=exact_bytes(members.salt, SALT_BYTES),
            opens_session=members.session,
            at_ms=None if members.at_ms is UNSET else members.at_ms,
        )
    except ValueError as error:
        raise SealedMessageError(f"the request's head is malformed: {error}") from None


def _strict_request(data: bytes) -> _Request:
    members = require_members(strict_json(data, max_bytes=MAX_HEAD_BYTES), _REQUEST_MEMBERS, frozenset({"at_ms"}))
    boolean(members["receipt"]), boolean(members["session"])
    if "at_ms" in members:
        whole_number(members["at_ms"])
    return _Request(**members)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionGrant:
    """How long a session lives, and how long it may stay idle, in seconds."""

    lifetime_s: int
    idle_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """Frame 0 of an answer."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False, default=())
    session: SessionGrant | None = None

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return next((value for found, value in self.headers if found == name), None)

    def encode(self) -> bytes:
        """The bytes of frame 0."""
        members: dict[str, Any] = {"status": self.status, "headers": dict(self.headers)}
        if self.session:
            members["session"] = {"lifetime_s": self.session.lifetime_s, "idle_s": self.session.idle_s}
        return compact_json(members)


def parse_response_head(data: bytes) -> ResponseHead:
    """Read frame 0 of an answer.

    Raises:
        SealedMessageError: anything but exactly a response head.
    """
    try:
        members = _compact(_response_decoder, data) or _strict_response(data)
        return ResponseHead(
            status=_status(members.status),
            headers=_headers(members.headers),
            session=None if isinstance(members.session, UnsetType) else _session_grant(members.session),
        )
    except ValueError as error:
        raise SealedMessageError(f"the answer's head is malformed: {error}") from None


class _Response(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of an answer's head, as JSON types."""

    headers: dict[str, str]
    status: _Whole
    session: dict[str, _Whole] | UnsetType = UNSET


def _strict_response(data: bytes) -> _Response:
    members = require_members(
        strict_json(data, max_bytes=MAX_HEAD_BYTES), frozenset({"status", "headers"}), frozenset({"session"})
    )
    return _Response(**members)


_Members = TypeVar("_Members", _Request, _Response)
_request_decoder = msgspec.json.Decoder(_Request)
_response_decoder = msgspec.json.Decoder(_Response)


def _compact(decoder: msgspec.json.Decoder[_Members], data: bytes) -> _Members | None:
    """The members of a head in the compact form, or None for any other bytes."""
    try:
        members = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return members if compact_json(members) == data else None


def _session_grant(value: object) -> SessionGrant:
    members = require_members(value, frozenset({"lifetime_s", "idle_s"}))
    return SessionGrant(lifetime_s=whole_number(members["lifetime_s"]), idle_s=whole_number(members["idle_s"]))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
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


def _matching(value: object, pattern: re.Pattern[str]) -> str:
    text = _string(value)
    if not pattern.match(text):
        raise ValueError("a string has characters or a length that are not allowed there")
    return text


def _one_of(value: object, allowed: frozenset[str]) -> str:
    text = _string(value)
    if text not in allowed:
        raise ValueError(f"expected one of {sorted(allowed)}")
    return text


def _status(value: object) -> int:
    status = whole_number(value)
    if status not in _STATUS:
        raise ValueError("expected a status from 200 to 599")
    return status


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or len(value) > _MAX_HEADERS:
        raise ValueError(f"expected an object of at most {_MAX_HEADERS} headers")
    return tuple((_matching(name, _HEADER_NAME), _matching(content, _HEADER_VALUE)) for name, content in value.items())
