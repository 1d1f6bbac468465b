"""`blindai check`: whether a server would serve a model, before anything is uploaded; if not, why, and what to change.

Needs the extra `[server]`: the model goes through the guard and into a closed process, as after an upload.
Leaves out: doing so (server/model_trial.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindai.cli.exit_codes import FAILED
from blindai.cli.optimize import read_sample
from blindai.cli.options import JsonOption
from blindai.cli.screen import error_members, note, notes, plain, print_error, print_json, print_table, say
from blindai.errors import BlindAIError, InvalidModelError

if TYPE_CHECKING:
    from blindai.oip.tensors import TensorSpec
    from blindai.server.model_trial import Causes, Trial


def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="the model; MODEL.onnx.data is found by itself")],
    sample: Annotated[
        Path | None,
        typer.Option("--sample", metavar="FILE.npz", help="inputs of one request by name [default: random]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a server would serve a model, and what to change if not."""
    try:
        from blindai.server.model_trial import find_causes, try_model
    except ModuleNotFoundError as error:
        raise BlindAIError(
            f"check needs {error.name}", hint="in a clone of the project: pip install '.[server]'"
        ) from None
    inputs = None if sample is None else read_sample(sample)
    try:
        with notes().status("loading the model"):
            trial = try_model(model, inputs)
    except InvalidModelError as error:
        _show_refusal(error, find_causes(model), as_json=as_json)
        raise typer.Exit(FAILED) from None
    if as_json:
        print_json({"runs": trial.run_problem == "", **plain(trial)})
    else:
        _show(model, trial)
    if trial.run_problem and not trial.random_sample:
        raise typer.Exit(FAILED)


def _show_refusal(error: InvalidModelError, causes: Causes, *, as_json: bool) -> None:
    if as_json:
        print_json({"runs": False, **error_members(error), **plain(causes)})
        return
    say("✗ a server would refuse it")
    if causes.operators:
        rows = [(one.name, str(one.times), one.hint) for one in causes.operators]
        say("")
        print_table(("operator", "nodes", "what to do"), rows)
        say("")
    if causes.engine_words:
        say(f"ONNX Runtime: {causes.engine_words}")
    print_error(error)


def _show(model: Path, trial: Trial) -> None:
    say(f"✓ a server would serve {model.name}: {trial.digest}")
    size = f"{trial.size_bytes:,} bytes, {trial.nodes:,} nodes"
    say(f"  {size}, operator set {trial.opset}, precision {trial.face.precision}")
    say("")
    print_table(("", "name", "datatype", "shape"), list(_rows(trial)))
    say("")
    say(f"loaded into a closed process in {trial.load_s:.2f} s")
    if trial.run_ms is not None:
        say(f"one request of one row: {trial.run_ms:.3f} ms")
    _note_surprises(trial)


def _rows(trial: Trial) -> Any:
    for kind, specs in (
        ("input", trial.face.inputs),
        ("optional input", trial.face.optional),
        ("output", trial.face.outputs),
    ):
        yield from ((kind, spec.name, spec.datatype.value, _shape(spec)) for spec in specs)


def _shape(spec: TensorSpec) -> str:
    return "×".join("any" if size < 0 else str(size) for size in spec.shape) or "one value"


def _note_surprises(trial: Trial) -> None:
    if trial.run_problem and trial.random_sample:
        note(f"not run on random numbers: {trial.run_problem}")
        note("hint: give --sample FILE.npz with inputs as they really are")
    elif trial.run_problem:
        note(f"✗ it fails on the sample: {trial.run_problem}")
    if not trial.rows.independent:
        note(f"requests to it are never joined: {trial.rows.reason}")
    if trial.draws:
        note(f"its answers differ from run to run: {', '.join(trial.draws)} without a seed")
