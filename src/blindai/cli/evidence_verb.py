"""`blindai verify-evidence`: judge evidence that lies in files, with each check and what was found.

Leaves out: keys, receipts and proofs as a whole (verify_verb.py), and living servers (client_verbs.py).
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindai.attestation.evidence import Outcome
from blindai.attestation.policy import strict_policy
from blindai.attestation.policy_tees import PRESETS, STRICT
from blindai.cli.evidence_judgement import About, Judgement, judge_sample, outcome_counts
from blindai.cli.exit_codes import exit_code
from blindai.cli.explanations import what_to_do
from blindai.cli.options import (
    CacheOption,
    JsonOption,
    KdsOption,
    PccsOption,
    PolicyOption,
    SimulationOption,
    chosen_policy,
    moment,
)
from blindai.cli.screen import (
    error_members,
    note,
    one_line,
    plain,
    print_error,
    print_findings,
    print_json,
    print_table,
    say,
    warn_of_simulation,
)
from blindai.errors import BlindAIError
from blindai.evidence_files import Sample, folders_without_sample, read_sample, sample_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blindai.attestation.evidence import Claims
    from blindai.attestation.policy import Policy
    from blindai.cli.endorsement_options import Endorsing

NOT_BOUND = (
    "NOT BOUND: this evidence is about nobody's keys that you know. Whoever shows it may have copied it; "
    "give --report-data, or judge a whole proof with `blindai verify`"
)

PathArgument = Annotated[
    Path, typer.Argument(metavar="FILE|DIR", help="raw evidence, our JSON, or a folder of samples", exists=True)
]
AtOption = Annotated[str | None, typer.Option("--at", metavar="TIME", help="judge at this ISO time [default: now]")]
ReportDataOption = Annotated[
    str | None, typer.Option("--report-data", metavar="HEX", help="what the evidence must carry")
]
NonceOption = Annotated[
    str | None, typer.Option("--nonce", metavar="HEX", help="your own nonce, for a fresh attestation document")
]
CollateralOption = Annotated[
    Path | None,
    typer.Option("--collateral", metavar="FILE|DIR", help="vendors' certificates or collateral as files", exists=True),
]
EndorsementsOption = Annotated[
    Path | None,
    typer.Option("--endorsements", metavar="FILE|DIR", help="a bundle, or a folder of bundles", exists=True),
]
FetchOption = Annotated[bool, typer.Option("--fetch", help="ask the vendors' services for newer endorsements")]
SaveOption = Annotated[
    Path | None, typer.Option("--save-endorsements", metavar="FILE", help="write what was used as a bundle")
]


def verify_evidence(
    path: PathArgument,
    policy: PolicyOption = None,
    insecure_simulation: SimulationOption = False,
    at: AtOption = None,
    report_data: ReportDataOption = None,
    nonce: NonceOption = None,
    collateral: CollateralOption = None,
    endorsements: EndorsementsOption = None,
    fetch: FetchOption = False,
    pccs: PccsOption = None,
    kds: KdsOption = None,
    cache: CacheOption = None,
    save_endorsements: SaveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge evidence in files: reports, quotes, documents, or a folder of samples."""
    from blindai.cli.endorsement_options import endorsing

    accepted, preset = _accepted(policy, insecure_simulation=insecure_simulation)
    about = About(report_data=_bytes(report_data, "--report-data"), nonce=_bytes(nonce, "--nonce"))
    now = time.time() if at is None else moment(at)
    source = endorsing(
        bundles=endorsements, fetch=fetch, pccs=pccs, kds=kds, cache=cache, save=save_endorsements, now=now
    )
    judge = functools.partial(judge_sample, policy=accepted, preset=preset, about=about, now=now)
    folders = list(sample_folders(path)) if path.is_dir() else [path]
    paths = folders or [path]
    judgements = [
        _judge(one, root=path, collateral=collateral, source=source, judge=judge) for one in _with_progress(paths)
    ]
    source.save()
    if paths == [path]:
        _report_one(judgements[0], at=at, as_json=as_json)
    else:
        _report_many(judgements, at=at, as_json=as_json)
        _tell_of_passed_over(path)
        _end(judgements)


def _accepted(policy: str | None, *, insecure_simulation: bool) -> tuple[Policy, str]:
    """A preset alone names no reference values: it accepts nothing, and shows what else it would say."""
    if policy in PRESETS and not insecure_simulation:
        return strict_policy(), policy
    return chosen_policy(policy, insecure_simulation=insecure_simulation), STRICT


def _judge(
    path: Path, *, root: Path, collateral: Path | None, source: Endorsing, judge: Callable[[Sample], Judgement]
) -> Judgement:
    name = path.name if path == root else str(path.relative_to(root))
    try:
        found = read_sample(path, now=source.now, collateral=collateral)
        sample = Sample(name=name, items=source.complete(found.items), document=found.document)
    except BlindAIError as error:
        return Judgement(name=name, tees=(), error=error)
    return judge(sample)


def _report_one(judgement: Judgement, *, at: str | None, as_json: bool) -> None:
    warn_of_simulation(judgement.simulated)
    if as_json:
        print_json(_members(judgement, at))
    else:
        show(judgement, at)
    _warn_of_unbound([judgement])
    _end([judgement])


def show(judgement: Judgement, at: str | None) -> None:
    """Every check, every claim, what to do, and the verdict; an error that no finding tells goes to stderr."""
    print_findings(judgement.findings)
    for claim in judgement.claims:
        say("")
        for name, value in claim.facts():
            say(one_line(f"  {claim.tee} {name}: {value}"))
    _show_what_to_do(judgement)
    verdict = "✓ trusted under this policy" if judgement.error is None else "✗ not trusted"
    say(f"\n{verdict}: {one_line(', '.join(judgement.tees) or judgement.name)}")
    if judgement.bound_to:
        say(f"  about   {judgement.bound_to}")
    if at:
        say(f"  judged  at {at}, a time that is assumed and not proven")
    if judgement.error is not None and not any(one.outcome is Outcome.FAILED for one in judgement.findings):
        print_error(judgement.error)


def _show_what_to_do(judgement: Judgement) -> None:
    """For each check that failed, or failed and is only tracked: its own hint, or the one of the table."""
    asking = [one for one in judgement.findings if one.outcome in {Outcome.FAILED, Outcome.TRACKED}]
    for finding in asking:
        if hint := finding.hint or what_to_do(finding.code):
            say(f"\nto do: {finding.code}: {hint}" if finding is asking[0] else f"to do: {finding.code}: {hint}")


def _report_many(judgements: list[Judgement], *, at: str | None, as_json: bool) -> None:
    if as_json:
        print_json({"assumed_time": at, "samples": [_members(judgement, at) for judgement in judgements]})
    else:
        print_table(("sample", "TEE", "exit", "passed", "failed", "left out", "why"), map(_row, judgements))
        trusted = sum(judgement.error is None for judgement in judgements)
        say(f"\n{len(judgements)} sample{'s' * (len(judgements) != 1)}, {trusted} trusted under this policy")
    _warn_of_unbound(judgements)


def _tell_of_passed_over(path: Path) -> None:
    """Nobody may take a folder that was not judged for one that was."""
    if names := [str(one.relative_to(path)) for one in folders_without_sample(path)]:
        note(f"not judged, since they hold no evidence of a TEE that this version knows: {', '.join(names)}")


def _row(judgement: Judgement) -> tuple[str, ...]:
    counts = outcome_counts(judgement.findings)
    failed = dict.fromkeys(one.code for one in judgement.findings if one.outcome is Outcome.FAILED)
    why = ", ".join(failed) or ("" if judgement.error is None else str(judgement.error))
    return (
        judgement.name,
        ", ".join(dict.fromkeys(judgement.tees)),
        str(_code(judgement)),
        str(counts["passed"]),
        str(counts["failed"]),
        str(counts["skipped"] + counts["tracked"]),
        why if len(why) <= _WHY_COLUMNS else why[: _WHY_COLUMNS - 1] + "…",
    )


_WHY_COLUMNS = 100


def _members(judgement: Judgement, at: str | None) -> dict[str, Any]:
    return {
        "name": judgement.name,
        "trusted": judgement.error is None,
        "exit_code": _code(judgement),
        "tees": list(judgement.tees),
        "simulated": judgement.simulated,
        "bound_to": judgement.bound_to or None,
        "assumed_time": at,
        "claims": [_claim_members(claim) for claim in judgement.claims],
        "findings": plain(judgement.findings),
        "error": error_members(judgement.error) if judgement.error else None,
    }


def _claim_members(claim: Claims) -> dict[str, str | list[str]]:
    """Each fact by its name; what is said several times, such as a TPM's command lines, is a list."""
    said: dict[str, list[str]] = {}
    for name, value in claim.facts():
        said.setdefault(name, []).append(value)
    return {"tee": claim.tee, **{name: values[0] if len(values) == 1 else values for name, values in said.items()}}


def _warn_of_unbound(judgements: Iterable[Judgement]) -> None:
    if any(judgement.unbound and judgement.claims for judgement in judgements):
        note(NOT_BOUND)


def _code(judgement: Judgement) -> int:
    return exit_code(judgement.error) if judgement.error else 0


def _end(judgements: Iterable[Judgement]) -> None:
    """The highest exit code of all: the later in the list of codes, the less can be believed."""
    if code := max(map(_code, judgements)):
        raise typer.Exit(code)


def _bytes(text: str | None, option: str) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter("expected hexadecimal digits", param_hint=option) from None


def _with_progress(paths: list[Path]) -> Iterator[Path]:
    """A bar on a terminal for more than a few; it leaves nothing behind."""
    import sys

    if len(paths) <= _FEW or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield from paths
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(paths, description="judging", console=Console(stderr=True), transient=True)


_FEW = 4
