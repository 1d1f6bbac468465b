"""Real evidence, made by real hardware and published by others: read where it is, and never kept by the project.

`BLINDAI_EVIDENCE` names the folder; without it the tests that need it skip, which CI counts as a failure.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

EVIDENCE = Path(os.environ.get("BLINDAI_EVIDENCE", Path(__file__).parents[2].parent / "shared" / "evidence"))
COLLATERAL = EVIDENCE / "_collateral"

needs_evidence = pytest.mark.skipif(not EVIDENCE.is_dir(), reason=f"no real evidence at {EVIDENCE} (BLINDAI_EVIDENCE)")


def sample_folders(tee: str) -> list[Path]:
    """The samples of a TEE, by the evidence folder's own name for it; none where the folder is absent."""
    return sorted(path.parent for path in (EVIDENCE / tee).glob("*/meta.json"))


def meta_of(folder: Path) -> dict[str, Any]:
    """What independent parsing says of a sample."""
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text("utf-8"))
    return meta


def unix_seconds(text: str) -> float:
    """`2026-03-05T10:50:03Z` as Unix seconds."""
    return datetime.fromisoformat(text).timestamp()
