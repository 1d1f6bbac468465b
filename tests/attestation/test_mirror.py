"""Each attester has its verifier, and each verifier stands in the table."""

from __future__ import annotations

from pathlib import Path

from blindai.attestation.tee import TEES

PACKAGE = Path(__file__).parents[2] / "src" / "blindai"


def tee_modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def test_what_can_be_attested_can_be_verified() -> None:
    assert set(tee_modules(PACKAGE / "attester")) - {"sealing"} <= set(tee_modules(PACKAGE / "attestation" / "tee"))


def test_every_verifier_is_in_the_table() -> None:
    assert tee_modules(PACKAGE / "attestation" / "tee") == sorted(TEES)
