"""The presets, as data: for each TEE one TOML file whose every line says why (docs/reference/presets.md).

A file `<tee>.toml` has a table `[strict]` with every field that is no reference value, and one for each other preset
that can meet this TEE, with just the fields in which it differs from `strict`.
Leaves out: what the fields mean (attestation/tee/).
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

STRICT = "strict"


def preset_table(preset: str, tee: str) -> dict[str, Any] | None:
    """What a preset says of one TEE, as its table of a policy file would; None if it cannot meet that TEE."""
    file = resources.files(__name__).joinpath(f"{tee}.toml")
    if not file.is_file():
        return None
    tables = tomllib.loads(file.read_text("utf-8"))
    return {**tables[STRICT], **tables[preset]} if preset in tables else None
