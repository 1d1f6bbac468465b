"""Which files beside a model make a bundle: its external data, and its pipeline.

Leaves out: what a bundle is (`bundle`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.bundle import PIPELINE_SUFFIX, check_file, check_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def discover_bundle(model_path: Path, data_files: Sequence[Path] | None) -> tuple[Path, ...]:
    """The files of a model: itself, and its weights if they lie beside it.

    Args:
        model_path: the `.onnx` file.
        data_files: its external data; `None` looks for `<model>.data` and `<model>_data` beside it.

    Raises:
        FileNotFoundError: one of them is not there.
        InvalidModelError: they make no bundle.
    """
    if data_files is None:
        beside = (model_path.with_name(model_path.name + suffix) for suffix in (".data", "_data"))
        data_files = [path for path in beside if path.is_file()]
    files = (model_path, *data_files)
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file")
        check_file(path.name, path.stat().st_size)
    check_paths([path.name for path in files])
    return files


def pipeline_beside(model_path: Path) -> Path | None:
    """The model's pipeline, `<model>.pipeline.json`, if it lies beside it (docs/spec/pipeline.md)."""
    path = model_path.with_name(model_path.name + PIPELINE_SUFFIX)
    return path if path.is_file() else None


def discover_upload(model_path: Path, data_files: Sequence[Path] | None) -> tuple[Path, ...]:
    """All that an upload takes along: the files of `discover_bundle`, and with `None` the pipeline beside the model.

    Raises:
        FileNotFoundError: one of them is not there.
        InvalidModelError: they make no bundle.
    """
    files = discover_bundle(model_path, data_files)
    pipeline = pipeline_beside(model_path) if data_files is None else None
    return files if pipeline is None else (*files, pipeline)
