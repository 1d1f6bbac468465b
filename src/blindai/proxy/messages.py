"""A local request and its answer, and what of them crosses the seal; plain values, without I/O.

What a sealed head cannot hold is refused here, in the server's own words where it has some.
Leaves out: whose connection carries a request (`forward`), and who listens (`http_front`, `grpc_front`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.client.exchange_flow import SealedRequest
from blindai.errors import (
    InferenceError,
    InvalidInputError,
    MethodNotAllowedError,
    ModelNotFoundError,
    OverloadedError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    from blindai.errors import BlindAIError

# What a sealed head knows; HEAD is asked as GET, and its answer's body left out here.
METHODS = ("GET", "HEAD", "POST", "DELETE")
_PATH = re.compile(r"/[\x21-\x7e]{0,2047}\Z")
_VALUE = re.compile(r"[\x20-\x7e]{0,8192}\Z")
_SCHEME = "bearer "
# What may run twice without harm, should the server have forgotten our keys: what reads, and of POST these.
_REPEATABLE_POST = re.compile(r"/v2/(models/[^/]+(/versions/[^/]+)?/infer|repository/index)/?")
_CONTENT_TYPE, _AUTHORIZATION = "content-type", "authorization"
_PASSED_ON = frozenset({"blindai-deadline-ms", "content-encoding", "if-match", "inference-header-content-length"})
_ONCE = _PASSED_ON | {_AUTHORIZATION, _CONTENT_TYPE}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRequest:
    """One request of a local program; `path` percent-encoded and without a query, header names in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """The value of a header (lower-case name), or None.

        Raises:
            InvalidInputError: it stands there twice, and could be read in two ways.
        """
        values = [value for found, value in self.headers if found == name]
        if len(values) > 1:
            raise InvalidInputError(f"the header {name} stands there twice")
        return values[0] if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAnswer:
    """What it gets back."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


def credential_of(request: LocalRequest) -> str | None:
    """The key or token that a request brings; None if it brings none, and so takes the proxy's own.

    Raises:
        UnauthenticatedError: it says who it is in a way that no server knows; it must not become the proxy's own user.
        InvalidInputError: it says so twice.
    """
    authorization = request.header(_AUTHORIZATION)
    if authorization is None:
        return None
    if not authorization.lower().startswith(_SCHEME) or not authorization[len(_SCHEME) :].strip():
        raise UnauthenticatedError(
            "this is no credential that the server knows", hint="Authorization: Bearer, and an API key or token"
        )
    return authorization[len(_SCHEME) :].strip()


def sealed_request(request: LocalRequest) -> SealedRequest:
    """What goes to the server.

    Raises:
        InferenceError: what no sealed head can hold.
    """
    if request.method not in METHODS:
        raise MethodNotAllowedError("this path is served under other methods")
    if not _PATH.match(request.path):
        raise ModelNotFoundError("nothing is served under this path")
    found = {name: value for name in _ONCE if (value := request.header(name)) is not None}
    for name, value in found.items():
        if not _VALUE.match(value):
            raise InvalidInputError(f"the header {name} is too long, or not plain ASCII")
    method = "GET" if request.method == "HEAD" else request.method
    return SealedRequest(
        method=method,
        path=request.path,
        headers=tuple((name, value) for name, value in found.items() if name in _PASSED_ON),
        content_type=found.get(_CONTENT_TYPE, ""),
        body=lambda: (request.body,) if request.body else (),
        repeatable=method == "GET" or (method == "POST" and _REPEATABLE_POST.fullmatch(request.path) is not None),
    )


def refusal(error: BlindAIError, *, status: int, prefix: str = "") -> LocalAnswer:
    """A failure of the proxy or on the way, in the protocol's form, with our code and hint beside it."""
    members = {"error": f"{prefix}{error}", "code": error.code, "hint": error.hint}
    return LocalAnswer(
        status=status,
        headers=(("content-type", "application/json"), *_advice(error)),
        body=json.dumps(members, separators=(",", ":")).encode(),
    )


def _advice(error: BlindAIError) -> tuple[tuple[str, str], ...]:
    if isinstance(error, MethodNotAllowedError):
        return (("allow", ", ".join(sorted(METHODS))),)
    if isinstance(error, InferenceError) and error.retry_after_s is not None:
        return (("retry-after", str(error.retry_after_s)),)
    return (("retry-after", "1"),) if isinstance(error, OverloadedError) else ()
