"""A failure as gRPC tells it: one of its status codes and a sentence; and which HTTP status becomes which code.

Leaves out: grpc itself; the codes go by name (`grpc.StatusCode[failure.code]`), so that translation is pure.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR_STATUS = 400  # and above
_SERVER_STATUS = 500
_MAX_DETAILS = 1024  # they travel in a header, and clients take 8 KiB of those


class Code(enum.StrEnum):
    """The status codes that we answer, by grpc's names."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ABORTED = "ABORTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class RpcError(Exception):
    """An RPC's failure.

    Attributes:
        code: its status.
        details: a sentence for whoever called.
    """

    def __init__(self, code: Code, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details[:_MAX_DETAILS]


_CODES = {
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    409: Code.ABORTED,
    412: Code.FAILED_PRECONDITION,
    413: Code.RESOURCE_EXHAUSTED,  # as grpc itself answers a message that is too large
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.DEADLINE_EXCEEDED,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,  # the proxy's, when it does not reach the server
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


class _ErrorBody(msgspec.Struct):
    """OIP's only member of an error, and our hint beside it."""

    error: str
    hint: str = ""


_decoder = msgspec.json.Decoder(_ErrorBody)


def code_of(status: int) -> Code:
    """The gRPC code of an HTTP status of 400 or more."""
    return _CODES.get(status, Code.INTERNAL if status >= _SERVER_STATUS else Code.INVALID_ARGUMENT)


def failure_of(status: int, body: Sequence[bytes | memoryview]) -> RpcError:
    """What an answer with a status of 400 or more is as an RPC's failure."""
    try:
        found = _decoder.decode(b"".join(body))
    except ValueError:
        return RpcError(code_of(status), f"status {status}")
    return RpcError(code_of(status), f"{found.error} ({found.hint})" if found.hint else found.error)
