"""What people read when evidence is refused: what was found, what was expected, and what to do.

Fake vendors sign the evidence; everything after their signature is the project's own way to print it. Each case stands
in a file of its own here; `pytest tests/golden --update-golden` writes them anew, and the diff shows what changed.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from golden import refusals

from blindai.attestation.tee import TEES
from blindai.attestation.x509_chain import utc_text
from blindai.cli import evidence_verb
from blindai.cli.screen import print_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from golden.refusals import Refused

FOLDER = Path(__file__).parent
CASES: dict[str, Callable[[], Refused]] = {
    case.__name__: case
    for case in (
        refusals.old_microcode,
        refusals.milan_without_a_chip_list,
        refusals.wrong_measurement,
        refusals.debug_enclave,
        refusals.expired_collateral,
        refusals.gpu_certificate_on_hold,
    )
}


@pytest.mark.parametrize("name", CASES)
def test_refused_evidence_reads_as_it_did(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    golden: Callable[[Path, str], None],
) -> None:
    case = CASES[name]()
    for tee, roots in case.roots.items():  # the pinned roots, and nothing else, are the fake vendor's
        verify = functools.partial(TEES[tee].verify, **roots)
        monkeypatch.setitem(TEES, tee, dataclasses.replace(TEES[tee], verify=verify))
    judgement = case.judge()
    assert judgement.error is not None
    evidence_verb.show(judgement, utc_text(case.now))
    golden(FOLDER / f"{name}.txt", capsys.readouterr().out)


def test_an_unknown_operator_reads_as_it_did(
    capsys: pytest.CaptureFixture[str], golden: Callable[[Path, str], None]
) -> None:
    print_error(refusals.unknown_operator())
    golden(FOLDER / "unknown_operator.txt", capsys.readouterr().err)
