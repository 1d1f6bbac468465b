"""`blindai policy init`: write a first policy from what a server or a file shows, after showing it and asking.

Leaves out: the policy's text (first_policy.py).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import parse_document
from blindai.attestation.policy_tees import PRESETS, STRICT
from blindai.attestation.tee import TEES
from blindai.channel.attested import accept_attestation
from blindai.channel.keyset import DEFAULT_SERVICE, parse_keyset
from blindai.cli.evidence_verb import AtOption, CollateralOption
from blindai.cli.first_policy import Seen, first_policy
from blindai.cli.options import Level, ServiceOption, SimulationOption, moment
from blindai.cli.screen import note, one_line, print_findings, say, warn_of_simulation
from blindai.cli.whole_file import write_whole
from blindai.errors import PolicyViolationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blindai.attestation.evidence import Claims, EvidenceItem, Finding
    from blindai.attestation.policy import Policy
    from blindai.channel.keyset import Keyset

    Judge = Callable[[Policy], tuple[Finding, ...]]

_FILES = (".json", ".bin", ".toml")


def init(
    source: Annotated[str, typer.Argument(metavar="URL|FILE", help="a server, or evidence in a file or folder")],
    output: Annotated[Path, typer.Option("--output", "-o", help="where to write it")] = Path("policy.toml"),
    preset: Annotated[str, typer.Option("--preset", help=f"what sets the checks: {', '.join(PRESETS)}")] = STRICT,
    service: ServiceOption = DEFAULT_SERVICE,
    level: Annotated[Level, typer.Option("--level", help="the evidence to ask a server for")] = Level.FRESH,
    at: AtOption = None,
    collateral: CollateralOption = None,
    insecure_simulation: SimulationOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="write it without asking")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
) -> None:
    """Write a first policy from what is shown now, after you have seen every claim."""
    from blindai.policies import read_policy

    if preset not in PRESETS:
        raise typer.BadParameter(f"a preset is one of {', '.join(PRESETS)}, not {preset!r}", param_hint="--preset")
    if output.exists() and not force:
        raise typer.BadParameter(f"{output} is there already; --force replaces it", param_hint="--output")
    seen, judge = _look(source, service=service, level=level, at=at, collateral=collateral)
    if seen.simulated and not insecure_simulation:
        raise PolicyViolationError(
            "simulated evidence was shown, which protects nothing",
            finding_code="simulation.not_accepted",
            hint="to write a policy that accepts it all the same, say --insecure-simulation",
        )
    text = first_policy(seen, preset)
    policy = read_policy(text, source=str(output), folder=output.parent)
    findings = _judged(judge, policy)
    _show(seen, findings)
    note(f"\nthe policy, for {output}:")
    say(text)
    _warn(findings)
    if not yes and not typer.confirm(f"Do you accept all of this, and shall {output} be written?", err=True):
        note("nothing was written")
        raise typer.Exit(1)
    write_whole(output, text.encode())
    note(f"wrote {output}; compare its reference values with those of whoever builds the software")


def _look(source: str, *, service: str, level: Level, at: str | None, collateral: Path | None) -> tuple[Seen, Judge]:
    """What is shown, and how a policy would judge it."""
    path = Path(source)
    if path.exists() or path.suffix in _FILES:
        return _look_into(path, now=time.time() if at is None else moment(at), collateral=collateral)
    return _look_at(source, service=service, level=level)


def _look_at(url: str, *, service: str, level: Level) -> tuple[Seen, Judge]:
    from blindai.client.unjudged import fetch_unjudged

    answer = fetch_unjudged(url, level=level.value)
    document, now = parse_document(answer.body), time.time()

    def judge(policy: Policy) -> tuple[Finding, ...]:
        mode = Mode.FRESH if level is Level.FRESH else Mode.CACHED
        return accept_attestation(
            document,
            policy,
            service=service,
            mode=mode,
            nonce=answer.nonce,
            now=now,
            elapsed_s=answer.elapsed_s,
        ).result.findings

    claims, keyset = _claims(document.evidence, now), parse_keyset(document.keyset)
    return Seen(source=url, now=now, claims=claims, keyset=keyset, level=level.value), judge


def _look_into(path: Path, *, now: float, collateral: Path | None) -> tuple[Seen, Judge]:
    """Evidence in a file or a folder; without a keyset it is bound to nothing, and the findings say so."""
    from blindai.cli.evidence_judgement import About, judge_sample
    from blindai.evidence_files import read_sample

    sample = read_sample(path, now=now, collateral=collateral)

    def judge(policy: Policy) -> tuple[Finding, ...]:
        judgement = judge_sample(sample, policy, about=About(), now=now)
        if judgement.error is not None and not isinstance(judgement.error, PolicyViolationError):
            raise judgement.error
        return judgement.findings

    keyset = None if sample.document is None else parse_keyset(sample.document.keyset)
    level = Mode.FRESH.name if sample.document is None else sample.document.mode.name
    seen = Seen(source=path.name, now=now, claims=_claims(sample.items, now), keyset=keyset, level=level.lower())
    return seen, judge


def _claims(items: Sequence[EvidenceItem], now: float) -> tuple[Claims, ...]:
    """What authentic evidence says."""
    from blindai.attestation.checks import Checks

    for item in items:
        if item.tee not in TEES:
            raise PolicyViolationError(
                f"evidence of {item.tee} was shown, and this release can verify {', '.join(TEES)}",
                finding_code="policy.tees",
            )
    checks = Checks()
    return tuple(TEES[item.tee].verify(item, now, checks) for item in items)


def _judged(judge: Callable[[Policy], tuple[Finding, ...]], policy: Policy) -> tuple[Finding, ...]:
    """Every check of the new policy; what is not fresh, bound or authentic is an error as ever, and ends this."""
    try:
        return judge(policy)
    except PolicyViolationError as error:
        return error.findings


def _show(seen: Seen, findings: tuple[Finding, ...]) -> None:
    warn_of_simulation(seen.simulated)
    print_findings(findings)
    say(f"\nseen at {seen.source}, level {'simulated' if seen.simulated else seen.level}")
    for claim in seen.claims:
        for name, value in claim.facts():
            say(one_line(f"  {claim.tee} {name}: {value}"))
    if seen.keyset is not None:
        _show_keyset(seen.keyset)


def _show_keyset(keyset: Keyset) -> None:
    say(one_line(f"  service: {keyset.service}"))
    say(one_line(f"  software: {keyset.software.name} {keyset.software.version}"))
    for name, value in sorted(keyset.runtime.members().items()):
        say(one_line(f"  runtime {name}: {value}"))


def _warn(findings: tuple[Finding, ...]) -> None:
    bad = [finding.code for finding in findings if finding.outcome.value == "failed"]
    if bad:
        note(f"this policy refuses what was seen: {', '.join(bad)}; change it only if you know why")
