"""Where policies are: files, with the manifest that they name beside them, and presets (docs/reference/presets.md).

The presets are data: `general.toml` for what is about no TEE, and for each TEE one TOML file whose every line says why.
A file `<tee>.toml` has a table `[strict]` with every field that is no reference value, and one for each other preset
that can meet this TEE, with just the fields in which it differs from `strict`.
Leaves out: what the fields mean (attestation/).
"""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai.attestation.manifest import MAX_MANIFEST_BYTES
from blindai.attestation.policy import MAX_POLICY_BYTES, insecure_simulation_policy, parse_policy, strict_policy
from blindai.attestation.policy_tees import STRICT
from blindai.errors import InvalidPolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.policy import Policy

__all__ = ["PRESETS", "STRICT", "load_policy", "preset_source", "preset_table", "read_policy"]

# What can be named in place of a file; the cloud-* presets need a file, since they accept nothing without measurements.
PRESETS: dict[str, Callable[[], Policy]] = {
    STRICT: strict_policy,
    "insecure-simulation": insecure_simulation_policy,
}


def preset_source(tee: str) -> str | None:
    """The file of presets for a TEE, or for `general`, as it is read by people; None if there is none."""
    file = resources.files(__name__).joinpath(f"{tee}.toml")
    return file.read_text("utf-8") if file.is_file() else None


@functools.cache
def _tables(tee: str) -> dict[str, dict[str, Any]]:
    source = preset_source(tee)
    return {} if source is None else tomllib.loads(source)


def preset_table(preset: str, tee: str) -> dict[str, Any] | None:
    """What a preset says of one TEE, as its table of a policy file would; None if it cannot meet that TEE."""
    tables = _tables(tee)
    return {**tables[STRICT], **tables[preset]} if preset in tables else None


def load_policy(path_or_preset: str | Path) -> Policy:
    """The preset of that name, or the policy in that file; a `Path` is always a file.

    Raises:
        InvalidPolicyError: no such preset or file, or the file is not a policy.
    """
    if isinstance(path_or_preset, str) and path_or_preset in PRESETS:
        return PRESETS[path_or_preset]()
    path = Path(path_or_preset)
    try:
        data = _read(path, MAX_POLICY_BYTES)
        text = data.decode("utf-8")
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8"
        hint = f"a policy is a TOML file, or one of the presets {', '.join(PRESETS)}"
        raise InvalidPolicyError(f"{path}: cannot be read as a policy: {problem}", hint=hint) from None
    if len(data) > MAX_POLICY_BYTES:
        raise InvalidPolicyError(f"{path}: a policy has at most {MAX_POLICY_BYTES} bytes")
    return read_policy(text, source=str(path), folder=path.parent)


def read_policy(text: str, *, source: str, folder: Path) -> Policy:
    """A policy with the presets at hand, and the files that it names in its own folder.

    Raises:
        InvalidPolicyError: it is none.
    """
    return parse_policy(
        text,
        source=source,
        preset_table=preset_table,
        read_file=lambda name: _read(folder / name, MAX_MANIFEST_BYTES),
    )


def _read(path: Path, most: int) -> bytes:
    """A file's bytes; one that is too long comes with a byte too many, and is refused by who reads it."""
    with path.open("rb") as file:
        return file.read(most + 1)
