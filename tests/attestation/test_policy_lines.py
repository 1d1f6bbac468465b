"""The line that a complaint names is the one that the table or field stands on, in every form that TOML has."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.policy_lines import line_of

TEXT = (
    '''# [comment]
version = 1
"quoted key" = 2
dotted.a."b.c" = 3
text = """
[tee.fake]
inside = 1
"""
lists = [
  ["x"],
  [
    "a = 1", # "
  ],
]
[[any_of]]
[any_of.tee.first]   # [[any_of]]
field = 1
other = { inline = 1, more = [
  1] }
[[any_of]]
name = 'it'''
    """'s'
[ any_of . tee . first ]
field = 2
[[any_of.tee.first.rows]]
cell = 1
[[any_of.tee.first.rows]]
cell = 2
[last]
literal = '''
[[any_of]]
'''
end = 1
"""
)


def line(text: str) -> int:
    """The line of TEXT that begins so, counted from 1."""
    return next(number for number, one in enumerate(TEXT.splitlines(), start=1) if one.startswith(text))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("version",), 2),
        (("quoted key",), 3),
        (("dotted", "a", "b.c"), 4),
        (("dotted",), 4),
        (("lists",), line("lists")),
        (("any_of", 0), line("[[any_of]]")),
        (("any_of", 0, "tee", "first", "field"), line("field = 1")),
        (("any_of", 0, "tee", "first", "other", "inline"), line("other")),
        (("any_of", 0, "tee", "first", "missing"), line("[any_of.tee.first]")),
        (("any_of", 1), line("name") - 1),
        (("any_of", 1, "name"), line("name")),
        (("any_of", 1, "tee", "first", "field"), line("field = 2")),
        (("any_of", 1, "tee", "first", "rows", 0, "cell"), line("cell = 1")),
        (("any_of", 1, "tee", "first", "rows", 1, "cell"), line("cell = 2")),
        (("last", "end"), line("end")),
        (("nowhere",), 1),
        ((), 1),
    ],
)
def test_the_line_of_a_path(path: tuple[str | int, ...], expected: int) -> None:
    valid = TEXT.replace("'it's'", "'its'")
    tomllib.loads(valid)
    assert line_of(valid, path) == expected


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ('lists = [\n["last"],\n["last"]\n]\n[last]\nend = 1\n', ("last",), 5),
        ('lists = [\n["last"],\n[\n"end"],\n]\n[last]\nend = 1\n', ("last", "end"), 7),
        ("a = [{ b = [\n1 ] }, {\n} ]\n[b]\n", ("b",), 4),
        ("[a.b]\n[a]\n", ("a", "missing"), 2),
        ("[a.b]\n", ("a", "missing"), 1),
        ("x = 1\n[a.b.c]\n", ("a", "b"), 2),
    ],
)
def test_what_looks_like_a_header_is_none_and_what_names_more_is_another(
    text: str, path: tuple[str, ...], expected: int
) -> None:
    assert line_of(text, path) == expected


def test_lines_may_end_as_on_windows() -> None:
    assert line_of('a = """\r\n[b]\r\n"""\r\n[b]\r\nc = 1\r\n', ("b", "c")) == 5


KEYS = st.text(alphabet="abc", min_size=1, max_size=3)
VALUES = st.sampled_from(
    ["1", "true", '"[x]"', "'a = 1'", '["[", "]"]', "[[1], [\n2]]", '"""\n[a]\nb = 1\n"""', "{ b = 1 }"]
)
FILES = st.lists(
    st.one_of(
        st.tuples(st.just("key"), KEYS, VALUES),
        st.tuples(st.just("table"), KEYS, KEYS),
        st.tuples(st.just("array"), KEYS, KEYS),
    ),
    max_size=8,
)


def written(parts: list[tuple[str, str, str]]) -> tuple[str, dict[tuple[str | int, ...], int]]:
    """A file, and the line on which each key that was written stands; empty if the parts do not fit together."""
    text = ""
    lines: dict[tuple[str | int, ...], int] = {}
    table: tuple[str | int, ...] = ()
    arrays: dict[str, int] = {}
    for kind, name, value in parts:
        here = text.count("\n") + 1
        if kind == "key":
            lines[*table, name] = here
            text += f"{name} = {value}\n"
        elif kind == "table":
            table = (name, arrays[name], value) if name in arrays else (name, value)
            text += f"[{name}.{value}]\n"
        else:
            arrays[name] = arrays.get(name, -1) + 1
            table = (name, arrays[name])
            text += f"[[{name}]]\n"
    return text, lines


@given(FILES)
def test_every_key_of_a_file_is_found(parts: list[Any]) -> None:
    text, lines = written(parts)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert {path: line_of(text, path) for path in lines} == lines
