"""`blindai explain`: what a finding's code means, from which document it comes, and what to do."""

from __future__ import annotations

import difflib
import json
import textwrap
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from blindai.cli.explanations import Explanation, explanation_of, explanations
from blindai.cli.options import JsonOption, PolicyOption, SimulationOption, chosen_policy, moment
from blindai.cli.screen import print_json, print_table, say
from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blindai.attestation.evidence import Finding

_MAX_JSON_BYTES = 16 << 20
_ASKS_FOR_ACTION = frozenset({"failed", "tracked", "skipped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finding as some verb's JSON has it."""

    code: str
    outcome: str
    expected: str
    found: str
    reason: str


def explain(
    subject: Annotated[str, typer.Argument(metavar="CODE|FILE", help="a code, a TEE, evidence, or --json output")],
    policy: PolicyOption = None,
    insecure_simulation: SimulationOption = False,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="judge evidence at this ISO time")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a finding means and what to do: by its code, or all of a file's."""
    table = explanations()
    if chosen := _by_code(subject, table):
        _print_rows(chosen, as_json=as_json)
        return
    path = Path(subject)
    if not path.exists():
        raise typer.BadParameter(_unknown(subject, table))
    found = list(_findings_of(path, policy, insecure_simulation=insecure_simulation, at=at))
    _print_found(found, table, as_json=as_json)


def _by_code(subject: str, table: dict[str, Explanation]) -> tuple[Explanation, ...]:
    """The row of a code, or all rows of a TEE."""
    if row := table.get(subject):
        return (row,)
    if "/" not in subject and "." in subject and (row := explanation_of(subject, table)):
        return (row,)
    return tuple(row for row in table.values() if row.code.startswith(f"{subject}."))


def _unknown(subject: str, table: dict[str, Explanation]) -> str:
    near = difflib.get_close_matches(subject, table, n=3, cutoff=0.5)
    known = sorted({code.partition(".")[0] for code in table})
    return f"{subject!r} is no code and no file; " + (
        f"did you mean {' or '.join(near)}?" if near else f"codes begin with {', '.join(known)}"
    )


def _print_rows(rows: Sequence[Explanation], *, as_json: bool) -> None:
    if as_json:
        print_json([msgspec.structs.asdict(row) for row in rows])
    elif len(rows) == 1:
        _show(rows[0])
    else:
        print_table(("code", "step", "fails when"), [(row.code, row.step, row.fails_when) for row in rows])


def _show(row: Explanation, found: Found | None = None) -> None:
    say(row.code if found is None else f"{found.outcome}: {row.code}")
    if found is not None:
        _say("expected", found.expected)
        _say("found", found.found)
        _say("left out", found.reason)
    _say("fails when", row.fails_when)
    _say("decided", f"step {row.step}, {row.page}")
    _say("source", row.source)
    _say("what to do", row.what_to_do)


def _say(name: str, text: str) -> None:
    if text:
        head = f"  {name:<11} "
        lines = textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)
        say("\n".join([head + lines[0], *(" " * len(head) + line for line in lines[1:])]))


def _print_found(found: Sequence[Found], table: dict[str, Explanation], *, as_json: bool) -> None:
    """What asks for something is explained; what passed is counted."""
    explained = [(one, explanation_of(one.code, table)) for one in found if one.outcome in _ASKS_FOR_ACTION]
    if as_json:
        print_json([_members(one, row) for one, row in explained])
        return
    for one, row in explained:
        _show(row or _without_row(one.code), one)
        say("")
    passed = sum(one.outcome == "passed" for one in found)
    say(f"{passed} checks passed, {len(explained)} explained above")


def _without_row(code: str) -> Explanation:
    return Explanation(
        code=code, step="?", fails_when="this version does not know the code", source="", what_to_do="", page="nowhere"
    )


def _members(one: Found, row: Explanation | None) -> dict[str, Any]:
    members = {"code": one.code, "outcome": one.outcome, "expected": one.expected, "found": one.found}
    return {**members, "explanation": msgspec.structs.asdict(row) if row else None}


def _findings_of(path: Path, policy: str | None, *, insecure_simulation: bool, at: str | None) -> Iterator[Found]:
    """Those in a verb's JSON output, or those of judging evidence now."""
    if path.is_file() and (printed := _printed(path)) is not None:
        yield from printed
        return
    from blindai.cli.evidence_judgement import About, judge_sample
    from blindai.evidence_files import read_sample

    accepted = chosen_policy(policy, insecure_simulation=insecure_simulation)
    now = time.time() if at is None else moment(at)
    yield from map(_as_found, judge_sample(read_sample(path, now=now), accepted, about=About(), now=now).findings)


def _as_found(finding: Finding) -> Found:
    return Found(
        code=finding.code,
        outcome=finding.outcome.value,
        expected=finding.expected,
        found=finding.found,
        reason=finding.reason,
    )


def _printed(path: Path) -> list[Found] | None:
    """The findings in a JSON file, wherever they stand; None if it is evidence."""
    with path.open("rb") as file:
        data = file.read(_MAX_JSON_BYTES + 1)
    if data.lstrip()[:1] not in {b"{", b"["}:
        return None
    if len(data) > _MAX_JSON_BYTES:
        raise InvalidInputError(f"{path.name} has more than {_MAX_JSON_BYTES} bytes")
    try:
        found = list(_walk(json.loads(data)))
    except (ValueError, RecursionError):
        return None
    return found or None


def _walk(value: Any) -> Iterable[Found]:
    if isinstance(value, list):
        for member in value:
            yield from _walk(member)
    elif isinstance(value, dict):
        if isinstance(value.get("code"), str) and isinstance(value.get("outcome"), str):
            yield Found(**{field.name: str(value.get(field.name) or "") for field in fields(Found)})
            return
        if isinstance(value.get("code"), str) and isinstance(value.get("error"), str) and not value.get("finding"):
            yield Found(code=value["code"], outcome="failed", expected="", found=value["error"], reason="")
        for member in value.values():
            yield from _walk(member)
