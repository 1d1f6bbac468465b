"""What `blindai infer` reads: arrays, JSON, and for models with a pipeline text, pictures, scans and sound."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import typer

from blindai.errors import BlindAIError, InvalidInputError

_RAW = (".jpg", ".jpeg", ".png", ".wav")


def read_inputs(source: str) -> Any:
    """An array, a list, or a dict by input name; the bytes of a picture or sound, the text of a text.

    Raises:
        BadParameter: its ending says nothing that can be read.
        InvalidInputError: the file cannot be read as what its ending says.
        FileNotFoundError: it is not there.
    """
    if source == "-":
        return _json(sys.stdin.buffer.read())
    path = Path(source)
    if path.suffix == ".json":
        return _json(path.read_bytes())
    if path.suffix in (".npy", ".npz"):
        return _numpy(path)
    if path.suffix.lower() in _RAW:
        return path.read_bytes()
    if path.suffix == ".txt":
        return path.read_bytes().removesuffix(b"\n")  # which editors add; the server reads it as UTF-8
    if path.suffix == ".dcm":
        return _scan(path)
    endings = ".npy, .npz, .json, .txt, .jpg, .png, .wav, .dcm"
    raise typer.BadParameter(f"{path.name} ends in none of {endings}; or give JSON on stdin, as `-`")


def _scan(path: Path) -> bytes:
    """Only the picture of it."""
    from blindai.client import dicom

    try:
        return dicom.picture(path)
    except ImportError:
        raise BlindAIError(
            "a DICOM file needs pydicom", hint="in a clone of the project: pip install '.[dicom]'"
        ) from None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the input is not JSON: {error}") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def _numpy(path: Path) -> Any:
    import numpy as np

    try:
        loaded = np.load(path, allow_pickle=False)  # a pickle would run code of whoever made the file
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{path.name} is not a {path.suffix} file of plain arrays: {error}") from None
