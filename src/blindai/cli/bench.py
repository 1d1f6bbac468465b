"""`blindai bench`: which settings make a model answer most on this machine, or how much a running server answers.

Without `--server` it runs the model in the server's own processes, and needs the extra `[server]`.
Leaves out: the search (server/tuning.py), and the measuring of a server (`bench_server`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from blindai.cli.bench_load import MAX_IN_FLIGHT, read_shapes, show_load
from blindai.cli.bench_plot import rate_text, svg_bars, text_bar
from blindai.cli.bench_server import LoadWish
from blindai.cli.client_verbs import LAST
from blindai.cli.optimize import read_sample
from blindai.cli.options import JsonOption, Server, local_or_client_verb
from blindai.cli.screen import note, notes, plain, print_json, print_table, say
from blindai.errors import BlindAIError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blindai.server.tuning import Measured, Setting, Tuning

_BAR_WIDTH = 30
_IN_FLIGHT = 32


@local_or_client_verb
def bench(
    server: Server | None,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="MODEL.onnx, or with --server a name, name@sha256:digest or @last")
    ],
    sample: Annotated[
        Path | None,
        typer.Option("--sample", metavar="FILE.npz", help="inputs of one request by name [default: random]"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option("--shape", metavar="INPUT=1,3,224", help="with --server, of a random input; may be given again"),
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option("--in-flight", min=1, max=MAX_IN_FLIGHT, help="with --server, at most [default: 32]")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=3600, help="begin no measurement after so long")
    ] = 60,
    window: Annotated[float, typer.Option("--window", min=0.05, max=60, help="seconds of each measurement")] = 0.5,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.svg", help="write the bars there, too")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best settings for a model, or measure a server."""
    if plot is not None and plot.suffix != ".svg":
        raise typer.BadParameter(f"{plot.name} does not end in .svg", param_hint="--plot")
    inputs = None if sample is None else read_sample(sample)
    if server is None:
        if shape or in_flight:
            raise typer.BadParameter("--shape and --in-flight are about a server, and need --server")
        _tune(Path(model), inputs, seconds=seconds, window=window, plot=plot, as_json=as_json)
        return
    wish = LoadWish(
        model=None if model == LAST else model,
        sample=inputs,
        shapes=read_shapes(shape or ()),
        most_in_flight=in_flight or _IN_FLIGHT,
        budget_s=seconds,
        window_s=window,
    )
    show_load(server, wish, plot=plot, as_json=as_json)


def _tune(
    model: Path,
    inputs: Mapping[str, Any] | None,
    *,
    seconds: float,
    window: float,
    plot: Path | None,
    as_json: bool,
) -> None:
    try:
        from blindai.server.tuning import tune
    except ModuleNotFoundError as error:
        raise BlindAIError(
            f"bench needs {error.name}", hint="in a clone of the project: pip install '.[server]'"
        ) from None
    with _progress() as progress:
        found = tune(model, inputs, budget_s=seconds, window_s=window, on_measured=_reporter(progress))
    if plot is not None:
        plot.write_text(_svg(model.name, found), encoding="utf-8")
    if as_json:
        print_json({**plain(found), "config": config_pbtxt(found.best.setting).splitlines()})
    else:
        _show(found)
    _warn(found)


def config_pbtxt(setting: Setting) -> str:
    """The lines for a Triton repository's `config.pbtxt`."""
    lines = [
        f"instance_group [ {{ count: {setting.instances} kind: KIND_CPU }} ]",
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{setting.threads}" }} }}',
    ]
    if setting.joined_rows > 1:
        lines = [f"max_batch_size: {setting.joined_rows}", "dynamic_batching { }", *lines]
    return "\n".join(lines)


def serving_config(setting: Setting) -> str:
    """The same in Python, as the server keeps it."""
    config = setting.config()
    return (
        f'ServingConfig(batching="{config.batching}", max_joined_rows={config.max_joined_rows}, '
        f"instances={config.instances}, intra_op_threads={config.intra_op_threads})"
    )


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=notes(), transient=True
    )


def _reporter(progress: Progress) -> Callable[[Measured], None]:
    task = progress.add_task("loading the model", total=None)

    def report(found: Measured) -> None:
        progress.update(task, description=f"{_words(found.setting)}: {rate_text(found.rate)}")

    return report


def _words(setting: Setting) -> str:
    return (
        f"{_plural(setting.instances, 'process', 'processes')} × {_plural(setting.threads, 'thread', 'threads')}, "
        f"{_plural(setting.joined_rows, 'row', 'rows')}"
    )


def _plural(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _show(found: Tuning) -> None:
    most = max(one.rate for one in found.measured)
    rows = [
        (
            str(one.setting.instances),
            str(one.setting.threads),
            str(one.setting.joined_rows),
            f"{one.rows_per_run:.1f}",
            rate_text(one.rate),
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            text_bar(one.rate, most, width=_BAR_WIDTH) + ("  ← best" if one is found.best else ""),
        )
        for one in found.measured
    ]
    print_table(("processes", "threads", "rows", "joined", "answers", "p50 ms", "p99 ms", ""), rows)
    alone = found.measured[0]
    say(
        f"\nbest: {_words(found.best.setting)}: {rate_text(found.best.rate)}, "
        f"{found.best.rate / alone.rate:.1f} times as many as one by one on one thread"
    )
    say(f"\nconfig.pbtxt:\n{config_pbtxt(found.best.setting)}\n\nin Python:\n{serving_config(found.best.setting)}")


def _svg(name: str, found: Tuning) -> str:
    bars = [(_words(one.setting), one.rate, f"{rate_text(one.rate)}, {one.p50_ms:.2f} ms") for one in found.measured]
    return svg_bars(f"{name} on {_plural(found.cpus, 'CPU', 'CPUs')}", bars, marked=found.measured.index(found.best))


def _warn(found: Tuning) -> None:
    if not found.rows.independent:
        note(f"requests to this model are never joined: {found.rows.reason}")
    if found.random_sample:
        note("measured on random numbers, with 8 for every other open axis: give --sample FILE.npz")
    if not found.complete:
        note("time ran out before every setting was tried: give --seconds")
