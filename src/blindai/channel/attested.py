"""Decides whether evidence is about *these* keys, for *this* client, under *its* policy (docs/spec/binding.md).

`accept_attestation` is the client's whole decision: nothing is sent to a server before it has returned.
`accept_published` is a third party's, who has no nonce and so can find no more than `cached`.
Both are pure; both leave the judgement of the evidence itself to `attestation.appraise`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from blindai.attestation.appraise import appraise
from blindai.attestation.binding import Binding, Mode, device_digest, root_from_path
from blindai.attestation.checks import Checks, failed, judge, leave_out
from blindai.attestation.evidence import AttestationDocument, BatchProof, Finding, Level, Outcome
from blindai.attestation.expectations import one_of
from blindai.attestation.policy_file import Skip
from blindai.attestation.policy_release import judge_release
from blindai.attestation.policy_runtime import check_runtime
from blindai.attestation.tee import device_evidence
from blindai.channel.admission import verify_admission
from blindai.channel.keyset import Keyset, keyset_id, parse_keyset
from blindai.errors import (
    KeysetExpiredError,
    PolicyViolationError,
    RejectedEvidenceError,
    StaleEvidenceError,
    WrongOperatorError,
    WrongServiceError,
)
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from blindai.attestation.evidence import AttestationResult
    from blindai.attestation.policy import Policy

MAX_ANSWER_S = 60.0
MAX_CLOCK_DIFFERENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedKeyset:
    """A keyset that was found to be what the policy accepts.

    Attributes:
        level: the verifier's own finding; never stated by the server.
        result: every check that was made.
        nonce: the nonce it answers, if it is fresh.
    """

    keyset: Keyset
    keyset_id: bytes
    level: Level
    result: AttestationResult
    document: AttestationDocument = field(repr=False)
    nonce: bytes | None = field(repr=False)

    def check_time(self, now: float) -> None:
        """Keys end: asked at every request, by the client's clock.

        Raises:
            KeysetExpiredError: they have ended, or begin more than 120 s from now.
        """
        check_lifetime(self.keyset, now)


def accept_attestation(
    document: AttestationDocument,
    policy: Policy,
    *,
    service: str,
    mode: Mode,
    nonce: bytes | None,
    now: float,
    elapsed_s: float,
    pins_tls: bool = False,
) -> AttestedKeyset:
    """Decide whether `document` proves the peer, for the client who asked for it.

    Args:
        document: the attestation endpoint's answer; its endorsements may be the client's own.
        policy: what the client accepts.
        service: the name that the keyset must carry.
        mode: what was asked for.
        nonce: the 32 bytes that were sent, if fresh was asked for.
        now: the client's clock, in Unix seconds.
        elapsed_s: seconds between asking and the end of the answer.
        pins_tls: the client will rest on the TLS keys that the keyset names, which is never above `pinned-tls`.

    Raises:
        RejectedEvidenceError: the evidence, its binding or its kind is not acceptable.
        ChannelError: wrong service or operator, or keys that have ended.
    """
    keyset = parse_keyset(document.keyset)
    checks = Checks()
    _require_kind(document, keyset, mode, checks)
    if mode is Mode.FRESH:
        _require_nonce(document, keyset, nonce, checks)
        checks.require(_judge_delay(elapsed_s), StaleEvidenceError)
    result = _appraise(document, keyset, policy, now=now, checks=checks)
    _require_peer(keyset, result, policy, service=service, now=now, checks=checks)
    check_lifetime(keyset, now)
    checks.record([_judge_lifetime(keyset, now)])
    if pins_tls:
        checks.require(_judge_tls(keyset), PolicyViolationError)
    level = level_of(result, mode, pins_tls=pins_tls)
    if not policy.insecure_simulation:
        checks.require(_judge_level(level, policy), StaleEvidenceError)
    return _attested(document, keyset, result, checks, level=level, nonce=nonce)


def accept_published(
    document: AttestationDocument, policy: Policy, *, service: str | None, now: float
) -> AttestedKeyset:
    """Decide whether a published document names keys of an acceptable server; its keys may have ended since.

    Without a service whatever the keyset names will do, and the findings say so.

    Raises:
        RejectedEvidenceError: the evidence or its binding is not acceptable at `now`.
        ChannelError: wrong service or operator, or an admission that has ended at `now`.
    """
    keyset = parse_keyset(document.keyset)
    checks = Checks()
    _require_kind(document, keyset, document.mode, checks)
    result = _appraise(document, keyset, policy, now=now, checks=checks)
    _require_peer(keyset, result, policy, service=service, now=now, checks=checks)  # no time that the host could set
    return _attested(document, keyset, result, checks, level=level_of(result, Mode.CACHED), nonce=None)


def _attested(
    document: AttestationDocument,
    keyset: Keyset,
    result: AttestationResult,
    checks: Checks,
    *,
    level: Level,
    nonce: bytes | None,
) -> AttestedKeyset:
    return AttestedKeyset(
        keyset=keyset,
        keyset_id=keyset_id(document.keyset),
        level=level,
        result=replace(result, findings=checks.findings),
        document=document,
        nonce=nonce,
    )


def check_nonce_path(batch: BatchProof | None, keyset: Keyset, nonce: bytes) -> None:
    """Whether `nonce` is one of those for which the fresh key was made.

    Raises:
        StaleEvidenceError: it is not under the root that the keyset and the evidence carry.
    """
    if batch is None:
        raise StaleEvidenceError("the answer shows no path from our nonce", finding_code="binding.path")
    root = root_from_path(nonce=nonce, index=batch.index, count=batch.count, path=batch.path)
    if root != keyset.challenge:
        raise StaleEvidenceError(
            "the keys were not made for our nonce",
            finding_code="binding.nonce",
            hint="someone may be replaying an old answer",
        )


def check_lifetime(keyset: Keyset, now: float) -> None:
    """Whether a keyset is valid at `now`, Unix seconds by the client's clock.

    Raises:
        KeysetExpiredError: it has ended, or begins more than 120 s from now.
    """
    if now >= keyset.not_after:
        raise KeysetExpiredError(
            f"the attested keys ended {int(now - keyset.not_after)} s ago",
            hint="check this machine's clock; if it is right, the server or someone between hands out old keys",
        )
    if now < keyset.not_before - MAX_CLOCK_DIFFERENCE_S:
        raise KeysetExpiredError(
            f"the attested keys begin {int(keyset.not_before - now)} s from now",
            hint="check this machine's clock",
        )


def _require_kind(document: AttestationDocument, keyset: Keyset, mode: Mode, checks: Checks) -> None:
    kind = "fresh" if mode is Mode.FRESH else "epoch"
    finding = judge(
        holds=document.mode is mode and keyset.kind == kind,
        code="binding.kind",
        expected=f"{mode.name.lower()} evidence about a keyset of kind {kind}",
        found=f"{document.mode.name.lower()} evidence about a keyset of kind {keyset.kind}",
        why="Keys that are kept for hours must not pass for keys made for us.",
    )
    checks.require(finding, StaleEvidenceError)


def _require_nonce(document: AttestationDocument, keyset: Keyset, nonce: bytes | None, checks: Checks) -> None:
    if nonce is None:
        raise StaleEvidenceError("fresh evidence answers a nonce, and none was sent", finding_code="binding.nonce")
    try:
        check_nonce_path(document.batch, keyset, nonce)
    except StaleEvidenceError as error:
        error.findings = checks.findings
        raise
    finding = judge(
        holds=True,  # check_nonce_path has raised otherwise
        code="binding.nonce",
        expected="keys made after our nonce was known",
        found="our nonce under the challenge of keys and evidence",
        why="A key that did not exist before we asked cannot have leaked before.",
    )
    checks.record([finding])


def _judge_delay(elapsed_s: float) -> Finding:
    return judge(
        holds=elapsed_s <= MAX_ANSWER_S,
        code="binding.late",
        expected=f"an answer within {MAX_ANSWER_S:.0f} s",
        found=f"{elapsed_s:.1f} s",
        why="A slow answer leaves time to attack the key that it speaks of.",
    )


def _appraise(
    document: AttestationDocument, keyset: Keyset, policy: Policy, *, now: float, checks: Checks
) -> AttestationResult:
    """Hand over to `appraise`; what it finds, or refuses, stands behind what was checked before."""
    binding = Binding(
        mode=document.mode,
        keyset_id=keyset_id(document.keyset),
        challenge=keyset.challenge,
        device_digest=device_digest(device_evidence(document.evidence)),
    )
    try:
        result = appraise(document.evidence, policy, binding=binding, now=now)
    except RejectedEvidenceError as error:
        error.findings = (*checks.findings, *error.findings)
        raise
    checks.record(result.findings)
    return result


def _require_peer(
    keyset: Keyset, result: AttestationResult, policy: Policy, *, service: str | None, now: float, checks: Checks
) -> None:
    """What the keyset says of itself: simulated or not, service, operator, and the runtime policy that it promises."""
    checks.require(_judge_simulated(keyset, result), PolicyViolationError)
    named = _judge_service(keyset, service)
    checks.record([named])
    if named.outcome is Outcome.FAILED:
        raise WrongServiceError(f"expected the service {service!r}, found {keyset.service!r}", hint=named.hint)
    if policy.operator_keys is not None:
        _require_operator(keyset, policy.operator_keys, now=now, checks=checks)
    checks.record(check_runtime(policy.runtime, keyset.runtime.members()))
    if not isinstance(policy.release, Skip):  # else `appraise` has recorded that it is skipped
        checks.record([judge_release(policy.release, keyset.software.version)])
    bad = failed(checks.findings)
    if bad:
        raise checks.rejection(bad[0], PolicyViolationError)


def _judge_simulated(keyset: Keyset, result: AttestationResult) -> Finding:
    return judge(
        holds=keyset.simulated == result.simulated,
        code="keyset.simulated",
        expected=f"simulated = {result.simulated}, as the evidence shows",
        found=f"simulated = {keyset.simulated}",
        why="A simulated server must not pass for a real one, in receipts neither.",
    )


def _judge_service(keyset: Keyset, service: str | None) -> Finding:
    why = "Guards against talking to the right kind of server in the wrong place."
    if service is None:
        reason = "nobody said which service is meant"
        return leave_out(code="keyset.service", reason=reason, found=keyset.service, why=why)
    return judge(
        holds=keyset.service == service,
        code="keyset.service",
        expected=service,
        found=keyset.service,
        why=why,
        hint="name the service you mean with service=… or --service",
    )


def _require_operator(keyset: Keyset, pinned: tuple[bytes, ...], *, now: float, checks: Checks) -> None:
    operator = verify_admission(keyset.operator, service=keyset.service, instance=keyset.instance, now=now)
    finding = judge(
        holds=operator in pinned,  # verify_admission has raised if it is not about this instance
        code="operator.admission",
        expected=f"an operator that the policy pins: {one_of(map(base64url_encode, pinned))}",
        found=base64url_encode(operator),
        why="Otherwise anybody may boot the same software under the same name.",
        hint="compare the key with what the operator whom you mean publishes; pin it only if it is theirs",
    )
    checks.record([finding])
    if finding.outcome is Outcome.FAILED:
        raise WrongOperatorError(f"expected {finding.expected}, found {finding.found}", hint=finding.hint)


def _judge_lifetime(keyset: Keyset, now: float) -> Finding:
    return judge(
        holds=True,  # check_lifetime has raised otherwise
        code="keyset.lifetime",
        expected="keys that are valid now",
        found=f"they end in {int(keyset.not_after - now)} s",
        why="Keys that end soon limit what a leak can do.",
    )


def level_of(result: AttestationResult, mode: Mode, *, pins_tls: bool = False) -> Level:
    """What was found, whatever the server says; a TLS key that lives for long caps it."""
    if result.simulated:
        return Level.SIMULATED
    if pins_tls:
        return Level.PINNED_TLS
    return Level.FRESH if mode is Mode.FRESH else Level.CACHED


def _judge_tls(keyset: Keyset) -> Finding:
    return judge(
        holds=bool(keyset.tls),
        code="keyset.tls",
        expected="a keyset that names the server's TLS keys",
        found=f"{len(keyset.tls)} of them",
        why="Without one, any certificate would do, and so anybody between.",
        hint="leave out transport='tls': the sealed door needs no TLS key",
    )


def _judge_level(level: Level, policy: Policy) -> Finding:
    return judge(
        holds=level >= policy.minimum_level,
        code="level.minimum",
        expected=f"{policy.minimum_level.text} or higher",
        found=level.text,
        why="A level says how fresh the proof of the keys is.",
        hint="ask for fresh evidence, or lower `[level] minimum` in the policy",
    )
