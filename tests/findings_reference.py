"""The table of every finding code: read out of docs/spec, written to where `blindai explain` and people find it.

`python tests/findings_reference.py` writes both; tests/cli/test_explain.py holds them equal to the pages.
A table of codes has exactly the columns of `COLUMNS`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGED = ROOT / "src" / "blindai" / "cli" / "findings.json"
PAGE = ROOT / "docs" / "reference" / "findings.md"
COLUMNS = ("code", "step", "fails when", "source", "what to do")
_CELL = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")


def pages() -> list[Path]:
    """Where codes are specified."""
    return [ROOT / "docs/spec/appraisal.md", *sorted((ROOT / "docs/spec/tee").glob("*.md"))]


def rows(page: Path) -> Iterator[dict[str, str]]:
    """Every row of every table of codes of a page, as plain text, with the page's name."""
    inside = False
    for line in page.read_text("utf-8").splitlines():
        cells = tuple(cell.strip() for cell in _CELL.split(line)[1:-1])
        if not line.startswith("|"):
            inside = False
        elif cells == COLUMNS:
            inside = True
        elif inside and set("".join(cells)) - set("-:"):
            assert len(cells) == len(COLUMNS), f"{page.name}: {line}"
            assert re.fullmatch(r"`[a-z0-9_.<>]+`", cells[0]), f"{page.name}: {cells[0]} is not a code in backticks"
            plain = (_LINK.sub(r"\1", cell).replace("\\|", "|") for cell in cells[1:])
            names = ("step", "fails_when", "source", "what_to_do")
            yield {
                "code": cells[0].strip("`"),
                **dict(zip(names, plain, strict=True)),
                "page": page.relative_to(ROOT).as_posix(),
            }


def all_rows() -> list[dict[str, str]]:
    """Of all pages, by code."""
    return sorted((row for page in pages() for row in rows(page)), key=lambda row: row["code"])


def packaged() -> str:
    """The file in the package."""
    return json.dumps(all_rows(), indent=1, ensure_ascii=False) + "\n"


def reference() -> str:
    """The page for people."""
    lines = [
        "# Findings",
        "",
        "Every check that an appraisal can make, by its code.",
        "`tests/findings_reference.py` makes this page from the tables in [docs/spec](../index.md#specification).",
        "`blindai explain CODE` shows a row of it.",
        "Step `verify` decides whether evidence is authentic, step `check` whether the policy accepts what it says.",
        "Numbered steps are those of [appraisal.md](../spec/appraisal.md#1-steps).",
        "",
        "| code | step | fails when | source | what to do |",
        "|---|---|---|---|---|",
    ]
    for row in all_rows():
        cells = (row["step"], row["fails_when"], row["source"], row["what_to_do"])
        text = " | ".join(cell.replace("|", "\\|") for cell in cells)
        lines.append(f"| [`{row['code']}`](../{row['page'].removeprefix('docs/')}) | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PACKAGED.write_text(packaged(), "utf-8")
    PAGE.write_text(reference(), "utf-8")
    print(f"{len(all_rows())} codes")
