"""`blindai optimize`: make a smaller variant of a model on the owner's machine, and show what it costs.

The variant is another model with another digest: whoever runs it sees that it is not the original. Nothing here talks
to a server. Needs the extra `[server]`, for ONNX Runtime and its quantiser.
Leaves out: making it (server/variants.py) and comparing it (server/variant_report.py).
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindai.bundle import PIPELINE_SUFFIX
from blindai.bundle_files import discover_bundle, pipeline_beside
from blindai.cli.input_files import read_inputs
from blindai.cli.options import JsonOption
from blindai.cli.screen import note, notes, plain, print_json, print_table, say
from blindai.errors import BlindAIError, InvalidInputError
from blindai.server.variant_targets import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.server.variant_report import Report


def optimize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="the model; what lies beside it is found")],
    to: Annotated[
        Target, typer.Option("--to", help="int8: dynamic quantisation; fp32: only upgrade the opset")
    ] = Target.INT8,
    sample: Annotated[
        Path | None, typer.Option("--sample", metavar="FILE.npz", help="inputs by name to compare on [default: random]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT.onnx", help="[default: MODEL.int8.onnx and so on]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a smaller variant of a model, compared with the original."""
    try:
        from blindai.server.variant_report import compare
        from blindai.server.variants import make_variant, read_model, upgrade, write_model
    except ModuleNotFoundError as error:
        raise BlindAIError(
            f"optimize needs {error.name}", hint="in a clone of the project: pip install '.[server]'"
        ) from None
    out = output or model.with_name(f"{model.stem}.{to.value}.onnx")
    _check_paths(model, out)
    inputs = None if sample is None else read_sample(sample)
    original = read_model(model)
    with notes().status("making the variant"):
        upgraded, opset = upgrade(original, to.least_opset)
        changed = make_variant(upgraded, to)
    if opset:
        note(f"upgraded from operator set {opset[0]} to {opset[1]}")
    external = len(discover_bundle(model, None)) > 1
    with tempfile.TemporaryDirectory(prefix="blindai-optimize-") as folder:
        compared, name = model, str(model)
        if opset and opset[0] < Target.FP32.least_opset:
            note("the server takes no operator set below 7: compared with the upgraded model instead")
            compared, name = Path(folder) / "upgraded" / model.name, f"{model} (upgraded)"
            write_model(upgraded, compared, external=external)
            _take_pipeline(model, compared)
        written = Path(folder) / "variant" / out.name
        write_model(changed, written, external=external)
        _take_pipeline(model, written)
        with notes().status("comparing"):
            report = compare(compared, written, inputs)
        _move(written, out)
    show(
        replace(report, original=replace(report.original, path=name), variant=replace(report.variant, path=str(out))),
        as_json=as_json,
    )


def _take_pipeline(model: Path, variant: Path) -> None:
    """The variant takes and answers what the model does, so the model's pipeline is its own."""
    pipeline = pipeline_beside(model)
    if pipeline is not None:
        shutil.copyfile(pipeline, variant.with_name(variant.name + PIPELINE_SUFFIX))


def _move(written: Path, out: Path) -> None:
    """Put the variant where it was asked for, once it is known to run; what an older one left beside it goes."""
    beside = [f"{out.name}{suffix}" for suffix in (".data", "_data", PIPELINE_SUFFIX)]
    for name in beside:
        out.with_name(name).unlink(missing_ok=True)
    for file in written.parent.iterdir():
        shutil.move(file, out.with_name(file.name))


def _check_paths(model: Path, out: Path) -> None:
    discover_bundle(model, None)
    if out.suffix != ".onnx":
        raise typer.BadParameter(f"{out.name} does not end in .onnx", param_hint="--output")
    if out.resolve() == model.resolve():
        raise typer.BadParameter("the variant would overwrite the original", param_hint="--output")


def read_sample(path: Path) -> Mapping[str, Any]:
    """Inputs by name.

    Raises:
        InvalidInputError: the file has none.
    """
    inputs = read_inputs(str(path))
    if not isinstance(inputs, dict):
        raise InvalidInputError(
            f"{path.name} holds no inputs by name", hint="Write it with numpy.savez(path, name=array, …)."
        )
    return inputs


def show(report: Report, *, as_json: bool) -> None:
    """Print a report; warnings go to stderr."""
    if as_json:
        print_json({**plain(report), "speedup": report.speedup})
    else:
        _show_tables(report)
    if report.random_sample:
        note("compared on random numbers, which tells little of accuracy on real data: give --sample FILE.npz")
    if report.original.joinable and not report.variant.joinable:
        note("warning: the variant computes its ranges over the whole batch, so a row's answer depends on the others;")
        note("         the server never joins requests to it, and rows sent together do influence each other")


def _show_tables(report: Report) -> None:
    both = (report.original, report.variant)
    rows = [
        (
            one.path,
            f"{one.size_bytes:,}",
            one.precision,
            f"{one.median_ms:.3f}",
            "yes" if one.joinable else "no",
            one.digest,
        )
        for one in both
    ]
    print_table(("model", "bytes", "precision", "median ms", "joinable", "digest"), rows)
    say("")
    print_table(
        ("output", "largest difference", "mean difference", "agreement"),
        [(one.output, _short(one.largest), _short(one.mean), _share(one.agreement)) for one in report.differences],
    )
    smaller = report.original.size_bytes / report.variant.size_bytes
    say(f"\n{smaller:.2f} times as small, {report.speedup:.2f} times as fast")


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.3g}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
