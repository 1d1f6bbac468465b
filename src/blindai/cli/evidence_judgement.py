"""Judges evidence that lies in files: whatever it claims, what it is about, and what a policy says of it.

The decision is `attestation.appraise`; here stand only the ways in which evidence without a server can be bound.
Leaves out: reading files (evidence_files/), fetching endorsements (endorsements/), printing (evidence_verb.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.attestation.appraise import appraise
from blindai.attestation.binding import InsecureUnbound, Mode
from blindai.attestation.checks import Checks, judge, leave_out
from blindai.attestation.evidence import Outcome
from blindai.attestation.policy import skipped_checks
from blindai.attestation.policy_tees import STRICT
from blindai.attestation.tee import TEES, Role
from blindai.channel.attested import accept_published, check_nonce_path
from blindai.channel.keyset import parse_keyset
from blindai.cli.preset_preview import preset_findings
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, StaleEvidenceError, WrongOperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import AttestationDocument, Claims, EvidenceItem, Finding
    from blindai.attestation.policy import Policy
    from blindai.errors import BlindAIError
    from blindai.evidence_files import Sample

UNBOUND = InsecureUnbound(reason="evidence from a file, and nobody said what it should be about")
COMPARED = InsecureUnbound(reason="compared with --report-data instead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was found about one sample.

    Attributes:
        claims: what authentic items say; none of an item that is not authentic.
        findings: every check that was made, and those left out.
        bound_to: what the evidence was found to be about, in words; empty if that was not asked.
        unbound: nothing says what the evidence should be about, so it may be anybody's.
        error: why it is not trusted, or None.
    """

    name: str
    tees: tuple[str, ...]
    claims: tuple[Claims, ...] = ()
    findings: tuple[Finding, ...] = ()
    bound_to: str = ""
    unbound: bool = False
    error: BlindAIError | None = None

    @property
    def simulated(self) -> bool:
        """Whether no hardware stands behind it."""
        return "simulation" in self.tees


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What evidence should be about, as far as the caller knows.

    Attributes:
        report_data: what the machine's evidence must carry.
        nonce: the caller's own nonce, for a fresh attestation document.
    """

    report_data: bytes | None = field(default=None, repr=False)
    nonce: bytes | None = field(default=None, repr=False)


def judge_sample(sample: Sample, policy: Policy, *, about: About, now: float, preset: str = STRICT) -> Judgement:
    """Judge one sample; a refusal is in the answer, with everything that was found before it.

    Args:
        sample: evidence, with its endorsements.
        policy: what is accepted; one that names no TEE accepts nothing, and then `preset` says what else it would say.
        about: what the evidence should be about.
        now: Unix seconds.
        preset: named in place of a policy.
    """
    tees = tuple(item.tee for item in sample.items)
    unbound = sample.document is None and about.report_data is None
    authentic, compared = Checks(), Checks()
    claims: tuple[Claims, ...] = ()
    try:
        claims = _authentic_claims(sample.items, now, authentic)
        if about.report_data is not None:  # whatever the policy says, even one that accepts nothing
            _compare_report_data(claims, about.report_data, compared)
        bound_to, findings = _appraise(sample, policy, about, now)
        findings = _with_compared(findings, compared.findings)
    except RejectedEvidenceError as error:
        findings = _with_compared(_all_findings(authentic.findings, error.findings), compared.findings)
        if claims and not policy.any_of:
            findings = (*findings, *preset_findings(claims, preset))
        findings = (*findings, *_untold(error, error.finding_code, findings))
        return Judgement(name=sample.name, tees=tees, claims=claims, findings=findings, unbound=unbound, error=error)
    except WrongOperatorError as error:
        findings = (*authentic.findings, *_untold(error, "operator.admission", ()))
        return Judgement(name=sample.name, tees=tees, claims=claims, findings=findings, unbound=unbound, error=error)
    return Judgement(name=sample.name, tees=tees, claims=claims, findings=findings, unbound=unbound, bound_to=bound_to)


def _authentic_claims(items: Sequence[EvidenceItem], now: float, checks: Checks) -> tuple[Claims, ...]:
    """What the items say, whatever the policy will say to it: step 2 of the appraisal alone."""
    unknown = [item.tee for item in items if item.tee not in TEES]
    if unknown:
        raise MalformedEvidenceError(
            f"this release cannot verify {', '.join(unknown)}", finding_code="policy.tees", tee=unknown[0]
        )
    return tuple(TEES[item.tee].verify(item, now, checks) for item in items)


def _all_findings(authentic: tuple[Finding, ...], appraised: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The appraisal makes the checks of authenticity too, unless it was refused before or never begun."""
    made = {finding.code for finding in appraised}
    return (*(finding for finding in authentic if finding.code not in made), *appraised)


def _untold(error: BlindAIError, code: str, findings: Sequence[Finding]) -> Iterator[Finding]:
    """A refusal that is no finding yet, as one: whoever reads findings alone must see that there was one."""
    if not any(one.outcome is Outcome.FAILED and one.code == code for one in findings):
        why = "What is refused before or after the checks is as little to be trusted."
        yield judge(holds=False, code=code, expected="what is not refused", found=str(error), why=why, hint=error.hint)


def _appraise(sample: Sample, policy: Policy, about: About, now: float) -> tuple[str, tuple[Finding, ...]]:
    """What the evidence is about, in words, and every check; a document's keyset is judged with it."""
    if sample.document is not None:
        bound_to = _about_document(sample.document, about.nonce)
        attested = accept_published(sample.document, policy, service=None, now=now)
        return bound_to, (*attested.result.findings, *_of_no_server(policy, ("level.minimum",)))
    binding, bound_to = _binding(about)
    result = appraise(sample.items, policy, binding=binding, now=now)
    return bound_to, (*result.findings, *_of_no_server(policy, tuple(_OF_A_SERVER)))


_OF_A_SERVER = {
    "operator.admission": "Otherwise anybody may boot the same software under the same name.",
    "runtime.require": "An operator can set logging, isolation and more, and evidence vouches for what was set.",
    "release.minimum": "An old release has the mistakes that later ones mend.",
    "level.minimum": "A level says how fresh the proof of the keys is.",
}


def _of_no_server(policy: Policy, codes: tuple[str, ...]) -> Iterator[Finding]:
    """What the policy asks of a server's keys, and nobody can ask of this file."""
    skipped = {finding.code for finding in skipped_checks(policy)}
    for code in codes:
        if code not in skipped:
            yield leave_out(code=code, reason="not asked: a file shows no server", found="", why=_OF_A_SERVER[code])


def _binding(about: About) -> tuple[InsecureUnbound, str]:
    if about.nonce is not None:
        raise StaleEvidenceError(
            "only an attestation document says which nonce it answers",
            finding_code="binding.nonce",
            hint="for bare evidence, give what it must carry with --report-data HEX",
        )
    return (UNBOUND, "") if about.report_data is None else (COMPARED, "the report data that you gave")


def _about_document(document: AttestationDocument, nonce: bytes | None) -> str:
    keyset = parse_keyset(document.keyset)
    if nonce is None:
        return f"the keyset in the same file, of service {keyset.service!r}"
    if document.mode is not Mode.FRESH:
        raise StaleEvidenceError("cached evidence answers no nonce", finding_code="binding.nonce")
    check_nonce_path(document.batch, keyset, nonce)
    return f"your nonce and the keyset in the same file, of service {keyset.service!r}"


def _with_compared(findings: tuple[Finding, ...], compared: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The comparison with --report-data in place of the appraisal's own check of the binding, where there is one."""
    codes = {finding.code for finding in compared}
    return (*(finding for finding in findings if finding.code not in codes), *compared)


def _compare_report_data(claims: Sequence[Claims], expected: bytes, checks: Checks) -> None:
    """Whoever carries the binding (a vTPM if there is one, else the machine) must carry exactly these bytes."""
    roles = [TEES[claim.tee].role for claim in claims]
    role = Role.CARRIER if Role.CARRIER in roles else Role.MACHINE
    for claim in (claim for claim in claims if TEES[claim.tee].role is role):
        compared = judge(
            holds=claim.bound == expected,
            code="binding.report_data",
            expected=expected.hex(),
            found=claim.bound.hex(),
            why="Evidence is worth something only for the keys and the nonce that it names.",
            hint="the evidence is about something else than the report data that you gave",
        )
        checks.require(compared, StaleEvidenceError, tee=claim.tee)


def outcome_counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many checks ended how."""
    return {outcome.value: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
