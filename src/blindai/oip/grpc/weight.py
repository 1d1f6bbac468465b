"""What a message costs in memory before it is opened: protobuf makes tens of bytes of two.

A message's tensors in raw form cost their size; everything else is bounded, and counted at a multiple.
Leaves out: whose memory it is (the door's budget).
"""

from __future__ import annotations

from blindai.oip.grpc.failures import Code, RpcError

MAX_TYPED_BYTES = 16 * 1024 * 1024  # as JSON on the REST side
MAX_SMALL_BYTES = 64 * 1024
_COST = 16
_RAW_INPUT_CONTENTS = 7
_LENGTH_DELIMITED = 2
_MAX_FIELDS = 4096
_MAX_VARINT_BYTES = 10
_WITH_BULK = {"ModelInfer", "ModelStreamInfer"}
_WITH_FILES = {"RepositoryModelLoad"}  # which come in base64 on the REST side: decoded, encoded, and JSON's


def memory_of(rpc: str, raw: bytes) -> int:
    """Bytes that opening a message takes, its own included.

    Raises:
        RpcError: more than a request of this RPC may have outside its raw tensors.
    """
    if len(raw) <= MAX_SMALL_BYTES:
        return _COST * len(raw)
    if rpc in _WITH_FILES:
        return 4 * len(raw)
    if rpc not in _WITH_BULK:
        raise RpcError(Code.RESOURCE_EXHAUSTED, f"this request has at most {MAX_SMALL_BYTES} bytes")
    rest = len(raw) - _raw_tensor_bytes(raw)
    if rest > MAX_TYPED_BYTES:
        raise RpcError(
            Code.RESOURCE_EXHAUSTED,
            f"typed contents have at most {MAX_TYPED_BYTES} bytes, these have {rest}; send raw_input_contents",
        )
    return len(raw) + _COST * rest


def _raw_tensor_bytes(raw: bytes) -> int:
    """Bytes of the entries of `raw_input_contents`; what is malformed or after very many fields does not count."""
    found, offset = 0, 0
    for _ in range(_MAX_FIELDS):
        if offset >= len(raw):
            break
        tag, offset = _varint(raw, offset)
        if tag & 7 != _LENGTH_DELIMITED:  # ModelInferRequest has no other kind
            break
        size, offset = _varint(raw, offset)
        offset += size
        if tag >> 3 == _RAW_INPUT_CONTENTS and offset <= len(raw):
            found += size
    return found


def _varint(raw: bytes, offset: int) -> tuple[int, int]:
    """A number and where it ends; past the end of everything if it never does."""
    value = 0
    for index, byte in enumerate(raw[offset : offset + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004  # the last byte has no high bit
            return value, offset + index + 1
    return 0, len(raw) + 1
