"""Each TEE that can be verified has its attester, and the other way round."""

from __future__ import annotations

from pathlib import Path

from blindai.attestation.tee import TEES

PACKAGE = Path(__file__).parents[2] / "src" / "blindai"


def tee_modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def test_verifiers_and_attesters_are_for_the_same_tees() -> None:
    assert tee_modules(PACKAGE / "attestation" / "tee") == tee_modules(PACKAGE / "attester")


def test_every_verifier_is_in_the_table() -> None:
    assert tee_modules(PACKAGE / "attestation" / "tee") == sorted(TEES)
