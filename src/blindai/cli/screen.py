"""How results look: lines and columns for people, JSON for scripts; readable without colour.

Whatever comes from elsewhere is printed with its control characters escaped, so that no answer moves the cursor.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from blindai.cli.explanations import what_to_do
from blindai.errors import ChannelError, RejectedEvidenceError
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blindai.attestation.evidence import Finding
    from blindai.errors import BlindAIError

_STYLES = {"passed": "green", "failed": "bold red", "tracked": "bold yellow", "skipped": "yellow"}
_UNBROKEN = 10_000  # columns: a digest that is cut in two cannot be copied


def out() -> Console:
    """Where data goes."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def notes() -> Console:
    """Where everything else goes."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def use_any_encoding() -> None:
    """Write what the terminal's encoding lacks (✓ on an old Windows console) as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """A line, or some, of data on stdout."""
    out().print(printable(text), markup=False)


def note(text: str) -> None:
    """A line of everything else, on stderr."""
    notes().print(printable(text), markup=False)


def printable(text: str) -> str:
    """Text with everything escaped that a terminal would obey or hide, but for line ends."""
    return "".join(one if one.isprintable() or one == "\n" else repr(one)[1:-1] for one in text)


def one_line(text: str) -> str:
    """The same with line ends escaped too: what evidence says must not look like a line of ours."""
    return printable(text).replace("\n", "\\n")


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    exact = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(value, ensure_ascii=not exact, indent=2, allow_nan=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """Columns on stdout, no cell broken; numbers stand to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right" if column == "bytes" else "left")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console = Console(file=sys.stdout, highlight=False, width=_UNBROKEN)
    with console.capture() as captured:
        console.print(Padding(table, (0, 0, 0, len(indent)), expand=False))
    # Blanks at the end would wrap into empty lines on a terminal that is narrower than the table.
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def print_findings(findings: Iterable[Finding], *, indent: str = "") -> None:
    """Each check with ✓, ✗ or –, and why it matters: a line each, broken only to fit a terminal."""
    console = out()
    for finding in findings:
        line = indent + one_line(finding.line())
        if console.is_terminal:
            line = textwrap.fill(
                line, console.width, subsequent_indent=indent + "    ", break_on_hyphens=False, break_long_words=False
            )
        text = Text(line)
        text.stylize(_STYLES[finding.outcome.value], len(indent), len(indent) + 1)
        console.print(text)


def print_refusal(error: RejectedEvidenceError) -> None:
    """Every check that was made before the evidence was refused, the one that failed at the end."""
    print_findings(error.findings)
    if not any(finding.outcome.value == "failed" for finding in error.findings):
        say(one_line(f"✗ {error.finding_code}: {error}"))


def warn_of_simulation(simulated: bool) -> None:  # noqa: FBT001  # the one thing it is about
    """Say so wherever a result rests on a simulation."""
    if simulated:
        note("SIMULATION, NOT SECURE: no hardware protects this server; its operator can read everything")


def print_error(error: BlindAIError) -> None:
    """What went wrong, and what to do next."""
    is_about_a_peer = isinstance(error, RejectedEvidenceError | ChannelError)
    note(one_line(f"error: {error}") if is_about_a_peer else f"error: {error}")
    if hint := _hint(error):
        note(f"hint: {hint}")


def _hint(error: BlindAIError) -> str:
    """The error's own, or what the table of findings says to do."""
    if error.hint or not isinstance(error, RejectedEvidenceError):
        return error.hint
    return what_to_do(error.finding_code)


def file_error(error: OSError) -> str:
    """What the operating system says, without its number."""
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


def error_members(error: BlindAIError) -> dict[str, Any]:
    """An error for `--json`."""
    members: dict[str, Any] = {"error": str(error), "code": error.code, "hint": _hint(error)}
    if isinstance(error, RejectedEvidenceError):
        members["finding"] = error.finding_code
        members["findings"] = plain(error.findings)
    return members


def plain(value: Any) -> Any:
    """A value of dataclasses and structs as JSON: bytes as base64url, enumerations by value."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(member) for name, member in msgspec.structs.asdict(value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name.lstrip("_"): plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return base64url_encode(value)
    if isinstance(value, tuple | list):
        return [plain(member) for member in value]
    if isinstance(value, dict):
        return {str(name): plain(member) for name, member in value.items()}
    return value
