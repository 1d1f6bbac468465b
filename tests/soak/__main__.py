"""The soak by hand: `python -m soak [--seconds 600] [--report FILE]`, from `tests/`; `make audit` calls it."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sys
import tempfile
from pathlib import Path

from soak.mixed_load import run_soak


def main() -> int:
    """Run, print, write the report; the exit status is 1 if something was not well."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--report", type=Path, help="write the counts here, as a page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run_soak(Path(folder), options.seconds)
    lines = list(result.lines())
    print("\n".join(lines))
    try:
        result.check()
    except AssertionError as error:
        print(f"FAILED: {error}")
        return 1
    if options.report:
        options.report.write_text(_page(lines), "utf-8")
    return 0


def _page(lines: list[str]) -> str:
    machine = f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    today = dt.datetime.now(dt.UTC).date()
    counts = "\n".join(f"- {line}" for line in lines)
    return (
        f"# Soak of {today}\n\nMixed load by `make audit` (tests/soak) on a machine with {machine}, load average "
        f"{os.getloadavg()[2]:.1f} (other work ran beside it).\nErrors by cause, as in "
        f"[errors.md](../reference/errors.md).\n\n{counts}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
