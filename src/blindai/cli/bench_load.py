"""What `blindai bench MODEL --server URL` is told, and how it shows what was found.

Leaves out: the measuring (`bench_server`).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from blindai.cli.bench_plot import rate_text, svg_bars, text_bar
from blindai.cli.bench_server import measure
from blindai.cli.screen import note, notes, plain, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from blindai.cli.bench_server import LoadLevel, LoadWish, ServerLoad
    from blindai.cli.options import Server

MAX_IN_FLIGHT = 512  # as many as the client sends at a time
_BAR_WIDTH = 30
_SHAPE = re.compile(r"(?P<name>.+)=(?P<axes>[0-9]{1,12}(,[0-9]{1,12}){0,15})\Z")


def read_shapes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by input.

    Raises:
        BadParameter: one is not `INPUT=SIZE,SIZE,…`, or an input has two.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in given:
        found = _SHAPE.match(text)
        if found is None or found["name"] in shapes:
            raise typer.BadParameter(f"{text!r} is not INPUT=SIZE,SIZE,… for another input", param_hint="--shape")
        shapes[found["name"]] = tuple(int(axis) for axis in found["axes"].split(","))
    return shapes


def show_load(server: Server, wish: LoadWish, *, plot: Path | None, as_json: bool) -> None:
    """Measure a server, and print a table or JSON."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes(), transient=True) as progress:
        task = progress.add_task("attesting, and the first answer", total=len(wish.levels))

        def report(level: LoadLevel) -> None:
            progress.update(task, advance=1, description=f"{level.in_flight} in flight: {rate_text(level.rate)}")

        found = asyncio.run(measure(server, wish, on_measured=report))
    if plot is not None:
        plot.write_text(_svg(found), encoding="utf-8")
    if as_json:
        print_json({**plain(found), "random_sample": wish.sample is None})
    else:
        _show(found)
    _warn(found, wish)


def _show(found: ServerLoad) -> None:
    most = max(one.rate for one in found.measured)
    rows = [
        (
            str(one.in_flight),
            rate_text(one.rate),
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            f"{one.client_cpu_ms:.2f}",
            text_bar(one.rate, most, width=_BAR_WIDTH),
        )
        for one in found.measured
    ]
    print_table(("in flight", "answers", "p50 ms", "p99 ms", "client CPU ms", ""), rows)
    say(f"\n{found.model}@{found.digest}, over the {found.level} channel")


def _svg(found: ServerLoad) -> str:
    bars = [
        (f"{one.in_flight} in flight", one.rate, f"{rate_text(one.rate)}, {one.p50_ms:.2f} ms")
        for one in found.measured
    ]
    best = max(range(len(bars)), key=lambda index: bars[index][1])
    return svg_bars(f"{found.model}, over the {found.level} channel", bars, marked=best)


def _warn(found: ServerLoad, wish: LoadWish) -> None:
    if wish.sample is None:
        note("measured on random numbers: give --sample FILE.npz; open axes have 1 row, and 8 elsewhere: give --shape")
    if found.refusal:
        note(f"the server takes no more at a time: {found.refusal}")
    elif not found.complete:
        note("time ran out before everything was tried: give --seconds")
