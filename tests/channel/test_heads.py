"""Heads and trailers: what they say survives the way, and anything else is refused with our error only."""

from __future__ import annotations

import json
from typing import Any

import pytest
from channel.sealed_parts import request_head
from hypothesis import given
from hypothesis import strategies as st

from blindai.channel.heads import (
    RequestHead,
    ResponseHead,
    SessionGrant,
    Trailer,
    WireError,
    parse_request_head,
    parse_response_head,
    parse_trailer,
    parse_wire_error,
)
from blindai.errors import SealedMessageError
from blindai.wire import compact_json, length_prefixed

PARSERS = [parse_request_head, parse_response_head, parse_wire_error, parse_trailer]
DIGEST = b"F" * 32

_printable_ascii = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
_names = st.text("abcxyz019-", min_size=1, max_size=64)
_headers = st.dictionaries(_names, st.text(_printable_ascii, max_size=60), max_size=32).map(
    lambda headers: tuple(sorted(headers.items()))
)
request_heads = st.builds(
    RequestHead,
    request_id=st.binary(min_size=16, max_size=16),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80).map(lambda path: "/" + path),
    headers=_headers,
    content_type=st.text(_printable_ascii, max_size=60),
    padded=st.booleans(),
    wants_receipt=st.booleans(),
    salt=st.binary(min_size=32, max_size=32),
    opens_session=st.booleans(),
    at_ms=st.none() | st.integers(0, 2**53 - 1),
)
_seconds = st.integers(0, 2**53 - 1)
response_heads = st.builds(
    ResponseHead,
    status=st.integers(200, 599),
    headers=_headers,
    session=st.none() | st.builds(SessionGrant, lifetime_s=_seconds, idle_s=_seconds),
)
_texts = st.text(max_size=60)
wire_errors = st.builds(WireError, code=_texts, message=_texts, hint=_texts)
trailers = st.builds(
    Trailer,
    request_digest=st.none() | st.binary(min_size=32, max_size=32),
    receipt=st.text(st.characters(max_codepoint=0x7F), max_size=200),
    error=st.none() | wire_errors,
)


@given(request_heads)
def test_request_head_round_trip(head: RequestHead) -> None:
    assert parse_request_head(head.encode()) == head


@given(response_heads)
def test_response_head_round_trip(head: ResponseHead) -> None:
    assert parse_response_head(head.encode()) == head


@given(wire_errors)
def test_wire_error_round_trip(error: WireError) -> None:
    assert parse_wire_error(error.encode()) == error


@given(trailers)
def test_trailer_round_trip(trailer: Trailer) -> None:
    assert parse_trailer(trailer.encode()) == trailer


@given(
    st.sampled_from(PARSERS), st.binary(max_size=200) | st.text(alphabet='{}[]":,0a\\u', max_size=60).map(str.encode)
)
def test_arbitrary_bytes_raise_only_our_error(parser: Any, data: bytes) -> None:
    with pytest.raises(SealedMessageError):
        parser(data)


def request_members() -> dict[str, Any]:
    members: dict[str, Any] = json.loads(request_head(at_ms=5).encode())
    return members


def response_members() -> dict[str, Any]:
    head = ResponseHead(status=200, headers=(("a", "b"),), session=SessionGrant(lifetime_s=900, idle_s=300))
    members: dict[str, Any] = json.loads(head.encode())
    return members


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(request_members())), _json)
def test_any_replaced_request_member_reads_back_or_raises_our_error(name: str, value: Any) -> None:
    data = compact_json({**request_members(), name: value})
    try:
        head = parse_request_head(data)
    except SealedMessageError:
        return
    assert head.encode() == data


@given(st.sampled_from(sorted(response_members())), _json)
def test_any_replaced_response_member_reads_back_or_raises_our_error(name: str, value: Any) -> None:
    data = compact_json({**response_members(), name: value})
    try:
        head = parse_response_head(data)
    except SealedMessageError:
        return
    assert head.encode() == data


@pytest.mark.parametrize("missing", sorted(set(request_members()) - {"at_ms"}))
def test_a_request_head_that_lacks_a_member_is_refused(missing: str) -> None:
    members = {name: value for name, value in request_members().items() if name != missing}
    with pytest.raises(SealedMessageError):
        parse_request_head(compact_json(members))


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "example.org"},
        {"id": "AA"},
        {"method": "PUT"},
        {"method": "post"},
        {"path": "v2"},
        {"path": ""},
        {"path": "/a b"},
        {"path": "/a\n"},
        {"path": "/é"},
        {"path": "/" + "a" * 2048},
        {"headers": {"Authorization": "Bearer t"}},
        {"headers": {"a": "b\r\nc: d"}},
        {"headers": {"a": "b\n"}},
        {"headers": {"a:": "b"}},
        {"headers": {"": "b"}},
        {"headers": {"a": ["b", "c"]}},
        {"headers": {"a": "b" * 8193}},
        {"headers": {str(number): "" for number in range(33)}},
        {"headers": [["a", "b"]]},
        {"content_type": "a\n"},
        {"content_type": None},
        {"padding": "some"},
        {"padding": True},
        {"receipt": 1},
        {"salt": ""},
        {"session": "true"},
        {"at_ms": -1},
        {"at_ms": True},
        {"at_ms": None},
    ],
)
def test_a_request_head_that_says_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SealedMessageError, match="head is malformed"):
        parse_request_head(compact_json({**request_members(), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 199},
        {"status": 600},
        {"status": True},
        {"status": "200"},
        {"headers": None},
        {"session": None},
        {"session": {}},
        {"session": {"lifetime_s": 1}},
        {"session": {"lifetime_s": 1, "idle_s": -1}},
        {"session": {"lifetime_s": 1, "idle_s": 1, "id": "AA"}},
        {"body": ""},
    ],
)
def test_a_response_head_that_says_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SealedMessageError, match="head is malformed"):
        parse_response_head(compact_json({**response_members(), **changes}))


@pytest.mark.parametrize("parser", PARSERS[:2])
def test_a_member_named_twice_is_refused(parser: Any) -> None:
    members = request_members() if parser is parse_request_head else response_members()
    data = compact_json(members)
    parser(data)
    with pytest.raises(SealedMessageError, match="twice"):
        parser(b'{"headers":{},' + data[1:])
    with pytest.raises(SealedMessageError, match="twice"):
        parser(data.replace(b'"headers":{', b'"headers":{"x":"1","x":"2",', 1))


def test_a_head_over_64_kib_is_refused_before_parsing() -> None:
    data = request_head().encode()
    longest = data + b" " * (64 * 1024 - len(data))
    assert parse_request_head(longest) == request_head()
    with pytest.raises(SealedMessageError, match="at most 65536"):
        parse_request_head(longest + b" ")


def test_headers_are_found_by_name() -> None:
    assert request_head().header("authorization") == "Bearer t"
    assert request_head().header("content-length") is None
    assert ResponseHead(status=200, headers=(("a", "b"),)).header("a") == "b"


def test_the_trailer_is_the_specified_bytes() -> None:
    whole = Trailer(request_digest=DIGEST, receipt="r")
    assert whole.complete
    assert whole.encode() == b"\1" + DIGEST + length_prefixed(b"r") + length_prefixed(b"")
    cut = Trailer(request_digest=None)
    assert not cut.complete
    assert cut.encode() == bytes(1 + 32 + 4 + 4)


GOOD = Trailer(request_digest=DIGEST, receipt="token", error=WireError(code="c", message="m")).encode()


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_every_truncated_trailer_is_refused(length: int) -> None:
    with pytest.raises(SealedMessageError):
        parse_trailer(GOOD[:length])


@pytest.mark.parametrize(
    "data",
    [
        GOOD + b"\0",
        b"\2" + GOOD[1:],
        b"\xff" + GOOD[1:],
        b"\0" + GOOD[1:],  # not read to its end, and yet a digest
        b"\1" + DIGEST + length_prefixed("é".encode()) + length_prefixed(b""),
        b"\1" + DIGEST + length_prefixed(b"") + length_prefixed(b"{}"),
        b"\1" + DIGEST + length_prefixed(b"") + length_prefixed(b'{"code":"a","code":"b","error":"","hint":""}'),
        b"\1" + DIGEST + b"\xff\xff\xff\xff" + length_prefixed(b""),
        b"\1" + DIGEST + length_prefixed(b"") + b"\0\0\0\1",
    ],
)
def test_a_trailer_that_says_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(SealedMessageError):
        parse_trailer(data)


def test_heads_do_not_show_credentials_or_salts_when_printed() -> None:
    shown = repr(request_head(salt=b"\xaa" * 32, headers=(("authorization", "Bearer secret"),)))
    assert "secret" not in shown
    assert "\\xaa" not in shown
