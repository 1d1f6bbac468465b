"""Every published sample goes through `verify-evidence`: found by its files, judged at its time, told to people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attestation.samples import COLLATERAL, EVIDENCE, meta_of, needs_evidence, unix_seconds

from blindai.attestation.policy import strict_policy
from blindai.cli import evidence_verb
from blindai.cli.evidence_judgement import About, judge_sample
from blindai.cli.exit_codes import exit_code
from blindai.cli.explanations import explanation_of, explanations
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files import read_sample, sample_folders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

pytestmark = needs_evidence


def time_of(folder: Path) -> float:
    meta = meta_of(folder)
    times = meta.get("verify_at") or [run["verify_at"] for run in meta.get("runs", [])]
    return unix_seconds(times[0]) if times else unix_seconds("2026-06-01T00:00:00Z")


def test_every_sample_is_judged_and_told(capsys: pytest.CaptureFixture[str], tell: Callable[[str], None]) -> None:
    table, codes, authentic = explanations(), Counter[int](), 0
    for folder in (path for path in sample_folders(EVIDENCE) if (path / "meta.json").exists()):
        now = time_of(folder)
        is_amd = folder.parent.name in {"sev-snp", "azure-snp-vtpm"}
        try:
            sample = read_sample(folder, now=now, collateral=COLLATERAL / "amd" if is_amd else None)
        except MalformedEvidenceError as error:
            codes[exit_code(error)] += 1
            continue
        judgement = judge_sample(sample, strict_policy(), about=About(), now=now)
        assert judgement.error is not None  # there are no reference values
        assert [finding.code for finding in judgement.findings if explanation_of(finding.code, table) is None] == []
        evidence_verb.show(judgement, None)
        assert "✗ not trusted" in capsys.readouterr().out
        codes[exit_code(judgement.error)] += 1
        authentic += bool(judgement.claims)
    assert codes[5] == authentic > 0
    assert set(codes) <= {5, 6}
    tell(f"{codes.total()} samples: {authentic} authentic at their time, {codes[6]} not authentic or malformed")
