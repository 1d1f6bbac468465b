"""The key schedule of one request and its answer, one-shot or inside a session (docs/spec/sealed.md §3–§5).

Both ends hold an `Exchange`: who sends derives the same keys as who reads.
The client draws its secrets with `seal_exchange`, the server recovers them with `open_exchange`;
`SessionSecret` does the same inside a session. Leaves out: frames, heads, windows and time.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from blindai.channel.frames import KEYS_BYTES
from blindai.channel.hpke import CEK_BYTES, KEM_ID, WRAPPED_BYTES, HpkeKeyPair, seal
from blindai.errors import SealedMessageError
from blindai.hkdf import Expander, expand, extract
from blindai.wire import label, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Callable

MEDIA_TYPE = "application/vnd.blindai.sealed"
REQUEST_MAGIC = b"BSQ1"
RESPONSE_MAGIC = b"BSR1"
SESSION_REQUEST_MAGIC = b"BSS1"
SESSION_RESPONSE_MAGIC = b"BST1"
MAGIC_BYTES = 4
KEY_ID_BYTES = 8
NONCE_BYTES = 32
SESSION_ID_BYTES = 16
REQUEST_HEADER_BYTES = MAGIC_BYTES + KEY_ID_BYTES + 2 + 2 + WRAPPED_BYTES
SESSION_HEADER_BYTES = MAGIC_BYTES + SESSION_ID_BYTES + 8 + 16
ANSWER_HEADER_BYTES = MAGIC_BYTES + 8 + NONCE_BYTES


def sha256(*parts: bytes) -> bytes:
    """SHA-256 over the concatenation."""
    return hashlib.sha256(b"".join(parts)).digest()


def key_id(public_key: bytes) -> bytes:
    """`kid`: which HPKE key a request is sealed to."""
    return sha256(label("kid"), KEM_ID.to_bytes(2, "big"), length_prefixed(public_key))[:KEY_ID_BYTES]


@functools.lru_cache(maxsize=256)
def outer_digest(route: str) -> bytes:
    """What a path may read and must not change: method, media type and the `Blindai-Route` header."""
    outer = b"".join(length_prefixed(part.encode("ascii")) for part in ("POST", MEDIA_TYPE, route))
    return sha256(label("outer"), outer)


class Exchange(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # one a request: cheaper than a dataclass
    """One request's keys, and how its answer's are derived.

    Attributes:
        header: the request's header as sent.
        request_keys: key[32] ‖ base[12] of the request's frames.
        answer_prefix: the 12 bytes with which the answer must begin.
        secret: the content key; empty in a session.
        prk: the session's; None outside of one.
    """

    header: bytes
    request_keys: bytes
    answer_prefix: bytes
    secret: bytes = b""
    prk: Expander | None = None

    def __repr__(self) -> str:
        """Without keys."""
        return f"Exchange(answer_prefix={self.answer_prefix!r})"

    @property
    def transcript(self) -> bytes:
        """`T`: binds the answer to this request's header."""
        return sha256(label("transcript"), self.header)

    @property
    def in_session(self) -> bool:
        """Whether the request was made inside a session."""
        return self.prk is not None

    def answer_keys(self, answer_header: bytes) -> bytes:
        """key[32] ‖ base[12] of the answer's frames.

        Raises:
            SealedMessageError: the answer's header is not one for this request.
        """
        prefix, nonce = answer_header[: len(self.answer_prefix)], answer_header[len(self.answer_prefix) :]
        if prefix != self.answer_prefix or len(nonce) != NONCE_BYTES:
            raise SealedMessageError("the answer is not one to this request")
        if self.prk is not None:
            return self.prk.expand(label("session-response") + self.transcript + answer_header, KEYS_BYTES)
        salt = sha256(label("response-salt"), prefix[MAGIC_BYTES:], nonce, self.transcript)
        return expand(extract(salt, self.secret), label("response-key"), KEYS_BYTES)


def _request_info(kid: bytes, keyset_id: bytes, route: str) -> bytes:
    return label("request") + KEM_ID.to_bytes(2, "big") + kid + keyset_id + outer_digest(route)


def _one_shot(header: bytes, kid: bytes, content_key: bytes) -> Exchange:
    prk = extract(sha256(label("request-salt"), header), content_key)
    return Exchange(
        header=header,
        request_keys=expand(prk, label("request-key"), KEYS_BYTES),
        answer_prefix=RESPONSE_MAGIC + kid,
        secret=content_key,
    )


def seal_exchange(*, public_key: bytes, keyset_id: bytes, route: str, random: Callable[[int], bytes]) -> Exchange:
    """Client: draw a content key and seal it to the attested HPKE key."""
    kid = key_id(public_key)
    content_key = random(CEK_BYTES)
    wrapped = seal(content_key, public_key, info=_request_info(kid, keyset_id, route))
    lengths = KEM_ID.to_bytes(2, "big") + len(wrapped).to_bytes(2, "big")
    return _one_shot(REQUEST_MAGIC + kid + lengths + wrapped, kid, content_key)


def request_key_id(header: bytes) -> bytes:
    """Server: which key a one-shot header names.

    Raises:
        SealedMessageError: not a whole `BSQ1` header of the one suite.
    """
    suite = KEM_ID.to_bytes(2, "big") + WRAPPED_BYTES.to_bytes(2, "big")
    named = MAGIC_BYTES + KEY_ID_BYTES
    if len(header) != REQUEST_HEADER_BYTES or header[:4] != REQUEST_MAGIC or header[named : named + 4] != suite:
        raise SealedMessageError("not the header of a sealed request")
    return header[MAGIC_BYTES:named]


def open_exchange(header: bytes, *, keys: HpkeKeyPair, keyset_id: bytes, route: str) -> Exchange:
    """Server: recover the content key of a one-shot request.

    Raises:
        SealedMessageError: the header was changed, or is for another key, keyset or route.
    """
    kid = request_key_id(header)
    content_key = keys.open(header[-WRAPPED_BYTES:], info=_request_info(kid, keyset_id, route))
    return _one_shot(header, kid, content_key)


def replay_digest(header: bytes) -> bytes:
    """Server: what a one-shot request leaves in its key's replay set."""
    return sha256(label("replay"), request_key_id(header), header[-WRAPPED_BYTES:])[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSecret:
    """What the opening exchange leaves behind at both ends; the content key itself is dropped."""

    prk: bytes = field(repr=False)
    session_id: bytes
    _expander: Expander = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Set HMAC up, for all the session's requests."""
        object.__setattr__(self, "_expander", Expander(self.prk))

    @classmethod
    def after(cls, opening: Exchange, *, keyset_id: bytes, answer_header: bytes) -> SessionSecret:
        """Derive it from the opening request and the header of its answer."""
        kid, nonce = answer_header[MAGIC_BYTES:-NONCE_BYTES], answer_header[-NONCE_BYTES:]
        salt = sha256(label("session-salt"), keyset_id, kid, nonce, opening.transcript)
        prk = extract(salt, opening.secret)
        return cls(prk=prk, session_id=expand(prk, label("session-id"), SESSION_ID_BYTES))

    def exchange(self, header: bytes, *, route: str) -> Exchange:
        """The keys of the request that `header` (`H_q`) begins."""
        info = label("session-request") + header + outer_digest(route)
        return Exchange(
            header=header,
            request_keys=self._expander.expand(info, KEYS_BYTES),
            answer_prefix=SESSION_RESPONSE_MAGIC + header[MAGIC_BYTES + SESSION_ID_BYTES :][:8],
            prk=self._expander,
        )

    def header(self, number: int, random: Callable[[int], bytes]) -> bytes:
        """Client: `H_q` for request number q."""
        return SESSION_REQUEST_MAGIC + self.session_id + number.to_bytes(8, "big") + random(16)


def session_header_fields(header: bytes) -> tuple[bytes, int]:
    """Server: session id and request number of a `BSS1` header.

    Raises:
        SealedMessageError: not a whole one.
    """
    if len(header) != SESSION_HEADER_BYTES or header[:4] != SESSION_REQUEST_MAGIC:
        raise SealedMessageError("not the header of a request in a session")
    number_at = MAGIC_BYTES + SESSION_ID_BYTES
    return header[MAGIC_BYTES:number_at], int.from_bytes(header[number_at : number_at + 8], "big")
