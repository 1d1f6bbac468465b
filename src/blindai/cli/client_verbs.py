"""Verbs of the data owner and the model owner: `attest`, `upload`, `infer`, `models`, `delete`."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindai.cli.input_files import read_inputs
from blindai.cli.options import JsonOption, Server, client_verb
from blindai.cli.screen import note, one_line, plain, print_findings, print_json, print_refusal, print_table, say
from blindai.cli.whole_file import write_whole
from blindai.errors import BlindAIError, RejectedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai.client.attestation_view import Attestation
    from blindai.client.results import InferResult

LAST = "@last"
_BAR = 40  # columns of a score of 1


@client_verb
def attest(server: Server, as_json: JsonOption = False) -> None:
    """Verify a server: each check, and why it matters."""
    try:
        with server.connect() as client:
            attestation = client.attestation
    except RejectedEvidenceError as error:
        if not as_json:
            print_refusal(error)
        raise
    if as_json:
        print_json(_attestation_members(attestation))
        return
    keyset = attestation.keyset
    print_findings(attestation.findings)
    say(f"\nlevel {attestation.level}: {keyset.software.name} {keyset.software.version} as {keyset.service!r}")
    for claims in attestation.claims:
        for name, value in claims.facts():
            say(one_line(f"  {claims.tee} {name}: {value}"))


@client_verb
def upload(
    server: Server,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="the model; MODEL.onnx.data is found by itself")],
    name: Annotated[str | None, typer.Option("--name", help="the model's name [default: the file's stem]")] = None,
    version: Annotated[str | None, typer.Option("--version", help="its version [default: the server counts]")] = None,
    defer_loading: Annotated[bool, typer.Option("--defer-loading", help="load at the first inference")] = False,
    owner_key: Annotated[
        str | None, typer.Option("--owner-key", metavar="KEY", help="Ed25519 key that lets later releases have it")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Upload an ONNX model, which only the enclave opens."""
    with server.connect() as client:
        uploaded = client.upload_model(model, name=name, version=version, load=not defer_loading, owner_key=owner_key)
    if as_json:
        print_json({"name": uploaded.name, "version": uploaded.version, "digest": uploaded.digest})
    else:
        print_table(("name", "version", "digest"), [(uploaded.name, uploaded.version, uploaded.digest)])


@client_verb
def infer(
    server: Server,
    model: Annotated[str, typer.Argument(help=f"name, name@sha256:digest, or {LAST} for the one uploaded last")],
    data: Annotated[
        str,
        typer.Argument(metavar="FILE|-", help=".npy, .npz, .json, .txt, .jpg, .png, .wav, .dcm; - is JSON on stdin"),
    ],
    version: Annotated[str | None, typer.Option("--version", help="a version [default: the newest]")] = None,
    proof: Annotated[Path | None, typer.Option("--proof", help="write the publishable proof here")] = None,
    opening: Annotated[Path | None, typer.Option("--opening", help="write the private opening here")] = None,
    bars: Annotated[bool, typer.Option("--bars", help="a bar beside each score")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="OUT.png", help="draw boxes on the picture, or a chart of scores")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a model on data that only the enclave sees."""
    draw = None if plot is None else _plotter(plot)  # before anything is sent
    inputs = read_inputs(data)
    with server.connect() as client:
        result = client.infer(None if model == LAST else model, inputs, version=version)
    if as_json:
        print_json(_result_members(result))
    else:
        _show(result, bars=bars)
    if proof:
        result.proof().save(proof)
        note(f"wrote {proof}, which may be published")
    if opening:
        result.opening().save(opening)
        note(f"wrote {opening}, which holds the data: keep it private")
    if plot and draw:
        write_whole(plot, draw(result, inputs if isinstance(inputs, bytes) else None))
        note(f"wrote {plot}")


@client_verb
def models(server: Server, as_json: JsonOption = False) -> None:
    """List the models on a server, the newest at the end."""
    with server.connect() as client:
        listed = client.models()
    if as_json:
        print_json(plain(listed))
    else:
        rows = [(model.name, model.version, f"{model.size_bytes:,}", model.digest) for model in listed]
        print_table(("name", "version", "bytes", "digest"), rows)


@client_verb
def delete(
    server: Server,
    model: Annotated[str, typer.Argument(help="name or name@sha256:digest")],
    version: Annotated[str | None, typer.Option("--version", help="only this version [default: all]")] = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a model: its stored bytes and its process."""
    with server.connect() as client:
        deleted = client.delete_model(model, version=version)
    if as_json:
        print_json({"deleted": deleted})
    else:
        say(f"deleted {deleted} version{'s' if deleted != 1 else ''}")


def _plotter(path: Path) -> Callable[[InferResult, bytes | None], bytes]:
    """What draws a result for this file.

    Raises:
        BadParameter: the file is to be something else than a PNG.
        BlindAIError: the extra `pictures` is not installed.
    """
    if path.suffix.lower() != ".png":
        raise typer.BadParameter(f"{path.name} does not end in .png", param_hint="--plot")
    if importlib.util.find_spec("PIL") is None:
        raise BlindAIError("--plot needs Pillow", hint="in a clone of the project: pip install '.[pictures]'")
    from blindai.client import plots

    return plots.png


def _attestation_members(attestation: Attestation) -> dict[str, Any]:
    keyset = attestation.keyset
    return {
        "level": attestation.level,
        "simulated": attestation.simulated,
        "service": keyset.service,
        "software": plain(keyset.software),
        "runtime": keyset.runtime.members(),
        "not_after": keyset.not_after,
        "claims": plain(attestation.claims),
        "findings": plain(attestation.findings),
    }


def _show(result: InferResult, *, bars: bool) -> None:
    """Labels and boxes as tables, a transcript as its lines, everything else as arrays."""
    names = [tensor.name for tensor in result.outputs]
    if names == ["labels", "scores"] and result.outputs[0].datatype == "BYTES":
        print_table(("row", "label", "score", *(("",) if bars else ())), _label_rows(result, bars=bars))
    elif names == ["boxes", "labels", "scores"] and result.outputs[1].datatype == "BYTES":
        print_table(("row", "label", "score", "left", "top", "right", "bottom"), _box_rows(result))
    elif names == ["text"] and result.outputs[0].datatype == "BYTES":
        for text in result.texts():
            say(one_line(text))
    else:
        for tensor in result.outputs:
            say(f"{tensor.name}: {tensor.datatype} {list(tensor.shape)}\n{tensor.as_numpy()}")


def _label_rows(result: InferResult, *, bars: bool) -> Iterator[tuple[str, ...]]:
    for index, row in enumerate(result.labels()):
        for label, score in row:
            bar = "█" * round(_BAR * min(max(score, 0.0), 1.0)) if math.isfinite(score) else ""
            yield (str(index), label, f"{score:.4f}", *((bar,) if bars else ()))


def _box_rows(result: InferResult) -> Iterator[tuple[str, ...]]:
    for index, row in enumerate(result.boxes()):
        for box in row:
            sides = (f"{side:.1f}" for side in (box.left, box.top, box.right, box.bottom))
            yield (str(index), box.label, f"{box.score:.4f}", *sides)


def _result_members(result: InferResult) -> dict[str, Any]:
    outputs = [
        {
            "name": tensor.name,
            "datatype": str(tensor.datatype),
            "shape": list(tensor.shape),
            "data": [_jsonable(value) for value in tensor.as_flat()],
        }
        for tensor in result.outputs
    ]
    return {"model_name": result.model_name, "model_version": result.model_version, "outputs": outputs}


def _jsonable(value: object) -> object:
    """Bytes as text, and what JSON cannot hold (NaN, infinities) as strings."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value
