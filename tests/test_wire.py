"""Labels, prefixes, base64url and strict JSON: one reading of any bytes, or none."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.wire import (
    JSON_INTEGER_LIMIT,
    base64url_decode,
    base64url_encode,
    boolean,
    bounded_list,
    compact_json,
    exact_bytes,
    label,
    length_prefixed,
    printable,
    require_members,
    strict_json,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 1 << 20
_scalars = st.none() | st.booleans() | st.integers(-JSON_INTEGER_LIMIT, JSON_INTEGER_LIMIT) | st.text()
json_values = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner))
shallow_values = st.dictionaries(st.text(), _scalars | st.lists(_scalars, max_size=4), max_size=6)


def parse(data: bytes) -> Any:
    return strict_json(data, max_bytes=MAX_BYTES)


def refuses(data: bytes) -> bool:
    try:
        parse(data)
    except ValueError:
        return True
    return False


def test_label_and_length_prefix_are_the_specified_bytes() -> None:
    assert label("keyset") == b"blindai/1 keyset\0"
    assert length_prefixed(b"") == b"\0\0\0\0"
    assert length_prefixed(b"abc") == b"\0\0\0\3abc"


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_length_prefixes_keep_different_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    joined = [b"".join(map(length_prefixed, items)) for items in (one, other)]
    assert (joined[0] == joined[1]) is (one == other)


@given(st.binary())
def test_base64url_round_trip(data: bytes) -> None:
    text = base64url_encode(data)
    assert "=" not in text
    assert base64url_decode(text) == data


@given(st.text(alphabet="AQgw_-=+/ \n8f", max_size=8))
def test_base64url_has_one_text_for_some_bytes(text: str) -> None:
    try:
        data = base64url_decode(text)
    except ValueError:
        return
    assert base64url_encode(data) == text


@pytest.mark.parametrize(
    "text", ["AA==", "AA=", "AB", "AAB", "A", "A+", "A/", "AA\n", " AA", "ÄA", None, 7, b"AA", True]
)
def test_base64url_refuses(text: object) -> None:
    with pytest.raises(ValueError, match="base64url"):
        base64url_decode(text)


@given(shallow_values)
def test_strict_json_reads_what_compact_json_writes(value: dict[str, Any]) -> None:
    assert parse(compact_json(value)) == value


@given(json_values)
def test_strict_json_accepts_exactly_eight_levels(value: Any) -> None:
    def depth(inner: Any) -> int:
        if isinstance(inner, dict):
            return 1 + max(map(depth, inner.values()), default=0)
        return 1 + max(map(depth, inner), default=0) if isinstance(inner, list) else 0

    assert refuses(compact_json(value)) is (depth(value) > 8)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_value_error_or_parse_as_json_does(data: bytes) -> None:
    if not refuses(data):
        assert parse(data) == json.loads(data)


@given(st.text(alphabet='[]{}":,\\ue0-1.truenlfas \n\t', max_size=60))
def test_json_like_text_raises_value_error_or_parses_as_json_does(text: str) -> None:
    if not refuses(text.encode()):
        assert parse(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'[{"a":1,"\\u0061":2}]',
        b'\xef\xbb\xbf{"a":1}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1.0",
        b"1e3",
        b"-0",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 5000,
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b'"\xff"',
        b"1 2",
        b"",
        b'"a\nb"',
        "[1]".encode("utf-16"),
    ],
)
def test_strict_json_refuses_what_two_readers_may_read_differently(data: bytes) -> None:
    assert refuses(data)


def test_strict_json_accepts_integers_up_to_its_limits() -> None:
    assert parse(b"[9007199254740991,-9007199254740991,0]") == [JSON_INTEGER_LIMIT, -JSON_INTEGER_LIMIT, 0]


def test_strict_json_checks_size_before_parsing() -> None:
    assert strict_json(b"[1]", max_bytes=3) == [1]
    with pytest.raises(ValueError, match="at most 2"):
        strict_json(b"[1]", max_bytes=2)


def test_nesting_is_bounded_and_brackets_in_strings_do_not_count() -> None:
    assert parse(b"[" * 8 + b"]" * 8)
    assert refuses(b"[" * 9 + b"]" * 9)
    assert refuses(b'{"a":' * 9 + b"1" + b"}" * 9)
    assert refuses(b"[" * MAX_BYTES)
    assert parse(b'["[[[[[[[[[[[[","\\"[[[[[[[[[[[["]') == ["[" * 12, '"' + "[" * 12]


def test_escapes_cannot_hide_nesting_from_the_check() -> None:
    assert refuses(b'["\\\\",' + b"[" * 9 + b"]" * 9 + b"]")
    assert refuses(b'["\\\\\\"",' + b"[" * 9 + b"]" * 9 + b"]")


@pytest.mark.parametrize("unit", [b'\\"', b'"\\', b"\\", b'"', b'\\\\"'])
def test_unterminated_strings_cost_linear_time(unit: bytes) -> None:
    # 1 MiB of a string that never ends took hours when each quote in it began a new search.
    data = (b'"' + unit * MAX_BYTES)[:MAX_BYTES]
    started = time.process_time()
    assert refuses(data)
    assert time.process_time() - started < 10


def test_compact_json_is_sorted_compact_and_utf8() -> None:
    assert compact_json({"b": [1, True, None], "a": "é"}) == '{"a":"é","b":[1,true,null]}'.encode()


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(_VALUES)
def test_compact_json_is_what_the_standard_library_writes(value: Any) -> None:
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    assert compact_json(value) == expected.encode()


def test_require_members_wants_exactly_those() -> None:
    required, optional = frozenset({"a"}), frozenset({"b"})
    assert require_members({"a": 1}, required, optional) == {"a": 1}
    assert require_members({"a": 1, "b": 2}, required, optional) == {"a": 1, "b": 2}
    others: list[object] = [{}, {"b": 1}, {"a": 1, "c": 2}, [], None, "a", 1]
    for value in others:
        with pytest.raises(ValueError, match="JSON object"):
            require_members(value, required, optional)


@pytest.mark.parametrize(
    ("reader", "good", "bad"),
    [
        (lambda value: exact_bytes(value, 2), ["AAA"], ["AA", "AAAA", "", None, 0]),
        (whole_number, [0, 7], [-1, True, False, None, "1", [], 1.5]),
        (boolean, [True, False], [0, 1, None, "true", []]),
        (printable, ["a", "é b", "x" * 256], ["", "x" * 257, "é" * 129, "a\n", "\x00", "\u202e", None, 1, "\ud800"]),
        (bounded_list, [[], [1] * 64], [[1] * 65, {}, None, "ab", (1,)]),
    ],
)
def test_readers_of_members_accept_and_refuse(
    reader: Callable[[object], object], good: list[object], bad: list[object]
) -> None:
    for value in good:
        reader(value)
    for value in bad:
        with pytest.raises(ValueError, match=r"expected|surrogates"):
            reader(value)


@given(shallow_values)
def test_compact_json_is_read_as_any_other_form_of_it(value: dict[str, Any]) -> None:
    compact = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    assert parse(compact) == parse(json.dumps(value, indent=1).encode()) == value
    assert list(parse(compact)) == list(value)
