"""`blindai` in this process, for verbs that are judged by the dozen: as `processes.blindai`, without a start of Python.

Leaves out: what needs a terminal or a server of its own (processes.py).
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING

from cli.processes import Ended

from blindai.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _stream(text: str = "") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8", newline="", write_through=True)


@contextlib.contextmanager
def _arguments(arguments: list[str], stdin: str) -> Iterator[None]:
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["blindai", *arguments], _stream(stdin)
    try:
        yield
    finally:
        sys.argv, sys.stdin = before


def blindai_here(*arguments: str | Path, stdin: str = "") -> Ended:
    """Run a verb to its end."""
    out, err = _stream(), _stream()
    code = 0
    with (
        _arguments([str(one) for one in arguments], stdin),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    written = [stream.buffer for stream in (out, err)]
    texts = [buffer.getvalue().decode() for buffer in written if isinstance(buffer, io.BytesIO)]
    return Ended(code=code, out=texts[0], err=texts[1])
