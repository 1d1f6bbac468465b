"""Every line of every preset says why, fits its TEE's parser, and stands in docs/reference/presets.md with its reason.

After a wanted change: `python tests/policies/test_presets.py --write`.
"""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blindai.attestation.policy import parse_policy
from blindai.attestation.policy_lines import line_of
from blindai.attestation.policy_tees import GENERAL, PRESETS, STRICT, fields_of
from blindai.attestation.tee import TEES
from blindai.policies import preset_source, preset_table

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "presets.md"
NAMES = [name for name in (GENERAL, *TEES) if preset_source(name) is not None]
_COMMENT = re.compile(r"#\s*(.*)")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'')
HEAD = (
    "# Presets\n\n"
    "What each preset says, line by line, and why; made from `src/blindai/policies/*.toml` "
    "by `tests/policies/test_presets.py`.\n"
    'A policy that says `preset = "strict"` has all of these fields but those that it sets itself '
    "([policy.md](../spec/policy.md) §5).\n"
    "A preset has no reference values and no operators, since only you can know those; "
    "what is left to you is named under each heading.\n"
    "A cloud's preset is `strict` with the differences that its table shows; "
    "a TEE without a table for that cloud cannot be met there.\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a preset: its field, its value as it stands there, and why."""

    field: str
    value: str
    why: str


def comment_of(line: str) -> str:
    """What stands behind a number sign that no string holds."""
    found = _COMMENT.search(_STRINGS.sub(lambda string: "x" * len(string[0]), line))
    return line[found.start(1) :].strip() if found else ""


def why(lines: list[str], number: int) -> str:
    """The comment behind a line (counted from 1), or else the ones right above it, or above its table's header."""
    header = next((one for one in range(number - 1, 0, -1) if lines[one - 1].startswith("[")), 1)
    return comment_of(lines[number - 1]) or above(lines, number) or above(lines, header)


def above(lines: list[str], number: int) -> str:
    comments = itertools.takewhile(lambda line: line.startswith("#"), reversed(lines[: number - 1]))
    return " ".join(reversed([comment_of(line) for line in comments]))


def paths(table: dict[str, Any], inside: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Each field of a table, and of the tables under headers of their own in it."""
    for name, value in table.items():
        yield from paths(value, (*inside, name)) if (*inside, name) in OWN_HEADERS else [(*inside, name)]


OWN_HEADERS = {("strict", "runtime"), ("strict", "runtime", "require")}


def preset_lines(name: str, preset: str) -> list[Line] | None:
    """What a file says for one preset, or None if that preset cannot meet this TEE."""
    source = preset_source(name)
    assert source is not None
    tables, lines = tomllib.loads(source), source.splitlines()
    if preset not in tables:
        return None
    found = []
    for path in paths(tables[preset], (preset,)):
        number = line_of(source, path)
        value = lines[number - 1].partition("=")[2]
        bare = value[: len(value) - len(comment_of(value))].rstrip().removesuffix("#").strip()
        found.append(Line(field=".".join(path[1:]), value=bare, why=why(lines, number)))
    return found


def page() -> str:
    return HEAD + "".join(f"\n{section}" for name in NAMES for section in sections(name))


def sections(name: str) -> Iterator[str]:
    yield f"## `tee.{name}`\n" if name != GENERAL else "## What is about no TEE\n"
    if name != GENERAL:
        left = [f"`{field}`" for field in fields_of(name) if field not in (preset_table(STRICT, name) or {})]
        yield f"Yours to set: {', '.join(left) or 'nothing'}.\n"
    for preset in PRESETS:
        lines = preset_lines(name, preset)
        if lines is None:
            yield f"### {name}: `{preset}`\n\nCannot be met.\n"
        elif lines:
            rows = "".join(f"| `{line.field}` | `{shown(line.value)}` | {cell(line.why)} |\n" for line in lines)
            yield f"### {name}: `{preset}`\n\n| field | value | why |\n|---|---|---|\n{rows}"
        else:
            yield f"### {name}: `{preset}`\n\nAs `strict`.\n"


def shown(value: str) -> str:
    return cell(re.sub(r"0{32,}", lambda zeros: f"0…0 ({len(zeros[0])} digits)", value))


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def test_the_page_is_as_committed() -> None:
    assert PAGE.read_text("utf-8") == page(), "python tests/policies/test_presets.py --write"


@pytest.mark.parametrize("name", NAMES)
def test_every_line_says_why(name: str) -> None:
    lines = [line for preset in PRESETS for line in preset_lines(name, preset) or []]
    assert [line.field for line in lines if not line.why and "skip" not in line.value] == []  # a skip has its reason
    assert lines


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_nothing_but_presets(name: str) -> None:
    source = preset_source(name)
    assert source is not None
    tables = tomllib.loads(source)
    assert STRICT in tables
    assert set(tables) <= set(PRESETS)


@pytest.mark.parametrize("tee", [name for name in NAMES if name != GENERAL])
def test_a_preset_sets_fields_of_its_tee_alone(tee: str) -> None:
    for preset in PRESETS:
        assert set(preset_table(preset, tee) or {}) <= set(fields_of(tee))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_read_with_every_tee_that_it_can_meet(preset: str) -> None:
    for tee in TEES:
        table = preset_table(preset, tee)
        if table is None:
            continue
        left = [f'{field}.skip = "a test"' for field in fields_of(tee) if field not in table]
        text = f'version = 1\npreset = "{preset}"\noperator.skip = "a test"\n[tee.{tee}]\n' + "\n".join(left)
        policy = parse_policy(text, source=tee, preset_table=preset_table)
        assert [one.tee for one in policy.any_of[0]] == [tee]
        assert not policy.insecure_simulation


def test_no_preset_meets_a_simulation() -> None:
    assert [preset for preset in PRESETS if preset_table(preset, "simulation")] == []


def test_an_unknown_preset_or_tee_has_no_table() -> None:
    assert preset_table("lax", GENERAL) is None
    assert preset_table(STRICT, "abacus") is None


def test_comments_are_found_beside_and_above() -> None:
    lines = ['a = "#"', "# one", "# two", "b = 1", 'c = "#" # three', "", "# four", "[d]", "e = 1"]
    assert [why(lines, number) for number in (1, 4, 5, 9)] == ["", "one two", "three", "four"]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/policies/test_presets.py --write")
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.name}")
