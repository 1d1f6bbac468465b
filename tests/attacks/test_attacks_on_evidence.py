"""Attacks on attestation: changed, replayed, re-quoted and mislabelled evidence (docs/spec/binding.md).

In every one the attacker can make evidence, as anybody can in simulation; nothing may hang on the signature alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import TYPE_CHECKING

import pytest
from attacks.forger import Forger, alone, attested_document, impostor, root_of
from attacks.world import OUTPUT, flip, is_sealed
from fakes.network import Answered, Sent

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import AttestationDocument, BatchProof, encode_document, parse_document
from blindai.attestation.policy import insecure_simulation_policy, strict_policy
from blindai.channel.attested import MAX_ANSWER_S, accept_attestation
from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.errors import PolicyViolationError, RejectedEvidenceError, StaleEvidenceError
from blindai.wire import base64url_encode, compact_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.world import World

    Forge = Callable[[World, Forger, bytes], AttestationDocument]


def cached_document_for_a_fresh_request(world: World, _forger: Forger, _nonce: bytes) -> AttestationDocument:
    return attested_document(world, mode=Mode.CACHED).document


def epoch_keyset_shown_as_fresh(world: World, forger: Forger, nonce: bytes) -> AttestationDocument:
    encoded = attested_document(world, mode=Mode.CACHED).document.keyset
    evidence = forger.quote(encoded, challenge=root_of(nonce))
    return AttestationDocument(keyset=encoded, mode=Mode.FRESH, evidence=evidence, batch=alone())


def epoch_keyset_relabelled_under_its_old_quote(world: World, _forger: Forger, nonce: bytes) -> AttestationDocument:
    honest = attested_document(world, mode=Mode.CACHED)
    keyset = dataclasses.replace(
        honest.keyset, kind="fresh", challenge=root_of(nonce), not_after=honest.keyset.not_before + 900
    )
    return dataclasses.replace(honest.document, keyset=keyset.encode(), mode=Mode.FRESH, batch=alone())


def old_key_under_a_fresh_quote(_world: World, forger: Forger, nonce: bytes) -> AttestationDocument:
    old = forger.held(root_of(os.urandom(32))).keyset
    return forger.document(old, quoted=root_of(nonce))


def old_key_with_our_challenge_under_its_old_quote(world: World, _forger: Forger, nonce: bytes) -> AttestationDocument:
    honest = attested_document(world)
    keyset = dataclasses.replace(honest.keyset, challenge=root_of(nonce))
    return dataclasses.replace(honest.document, keyset=keyset.encode())


def quote_of_another_challenge(_world: World, forger: Forger, nonce: bytes) -> AttestationDocument:
    return forger.document(forger.keyset(nonce), quoted=root_of(os.urandom(32)))


def quote_without_a_challenge(_world: World, forger: Forger, nonce: bytes) -> AttestationDocument:
    return forger.document(forger.keyset(nonce), quoted=b"")


def quote_of_other_keys(_world: World, forger: Forger, nonce: bytes) -> AttestationDocument:
    other = forger.document(forger.keyset(nonce))
    return dataclasses.replace(forger.document(forger.keyset(nonce)), evidence=other.evidence)


def document_of_another_client(world: World, _forger: Forger, _nonce: bytes) -> AttestationDocument:
    return attested_document(world).document


def document_without_a_path(_world: World, forger: Forger, nonce: bytes) -> AttestationDocument:
    return dataclasses.replace(forger.document(forger.keyset(nonce)), batch=None)


FRESH_FORGERIES: tuple[tuple[Forge, str], ...] = (
    (cached_document_for_a_fresh_request, "binding.kind"),
    (epoch_keyset_shown_as_fresh, "binding.kind"),
    (epoch_keyset_relabelled_under_its_old_quote, "binding.report_data"),
    (old_key_under_a_fresh_quote, "binding.nonce"),
    (old_key_with_our_challenge_under_its_old_quote, "binding.report_data"),
    (quote_of_another_challenge, "binding.report_data"),
    (quote_without_a_challenge, "binding.report_data"),
    (quote_of_other_keys, "binding.report_data"),
    (document_of_another_client, "binding.nonce"),
    (document_without_a_path, "binding.path"),
)


@pytest.mark.parametrize(("forge", "code"), FRESH_FORGERIES, ids=[forge.__name__ for forge, _ in FRESH_FORGERIES])
def test_a_fresh_client_refuses(world: World, forge: Forge, code: str) -> None:
    forger = Forger(world.time)
    victim = impostor(world, lambda nonce: forge(world, forger, nonce))
    with pytest.raises(StaleEvidenceError) as refusal:
        victim.infer()
    assert refusal.value.finding_code == code
    assert not any(is_sealed(sent) for sent, _ in victim.network.log)


def test_the_forger_is_believed_when_nothing_is_wrong(world: World) -> None:
    """The control: what refuses the forgeries above is what is wrong with each, not how they are made."""
    forger = Forger(world.time)
    victim = impostor(world, lambda nonce: forger.document(forger.keyset(nonce)))
    assert victim.attest().keyset.instance != world.app.sealed.keys.identity.instance


def test_a_cached_client_refuses_a_fresh_document(world: World) -> None:
    victim = impostor(world, lambda _nonce: attested_document(world).document, mode=Mode.CACHED)
    with pytest.raises(StaleEvidenceError, match=r"binding\.kind"):
        victim.attest()


@pytest.mark.parametrize("part", ["keyset", "evidence", "device_certificate", "root", "path"])
def test_no_changed_byte_of_a_document_is_accepted(world: World, part: str, tell: Callable[[str], None]) -> None:
    nonce, document = batched_document(world)
    accept(world, nonce, document)
    changed = [flip(parts_of(document)[part], at) for at in range(len(parts_of(document)[part]))]
    refused = sum(is_refused(world, nonce, with_part(document, part, data)) for data in changed)
    tell(f"attestation document, {part}: {refused} of {len(changed)} changed bytes refused")
    assert refused == len(changed) > 0


def test_no_other_place_in_the_batch_is_accepted(world: World) -> None:
    nonce, document = batched_document(world)
    honest = document.batch
    assert honest is not None
    others = [
        BatchProof(index=index, count=count, path=honest.path)
        for count in range(1, 17)
        for index in range(17)
        if (index, count) != (honest.index, honest.count)
    ]
    assert all(is_refused(world, nonce, dataclasses.replace(document, batch=other)) for other in others)


def test_an_answer_after_sixty_seconds_is_late(world: World) -> None:
    def hold(_sent: Sent, answered: Answered) -> Answered:
        world.time.pass_s(MAX_ANSWER_S + 1)
        return answered

    with pytest.raises(StaleEvidenceError, match=r"binding\.late"):
        world.victim(world.network(on_answer=hold)).attest()


def test_every_attestation_asks_with_another_nonce(world: World) -> None:
    victim = world.victim()
    for _ in range(3):
        victim.attest()
    asked = [sent.body for sent, _ in victim.network.log if sent.path == ATTESTATION_PATH]
    assert len(set(asked)) == 3


def test_simulated_evidence_is_refused_by_a_policy_that_allows_no_simulation(world: World) -> None:
    with pytest.raises(PolicyViolationError) as refusal:
        world.victim(policy=strict_policy()).infer()
    assert refusal.value.finding_code == "simulation.not_accepted"
    assert "insecure_simulation=True" in refusal.value.hint


def test_a_simulated_server_cannot_call_itself_real(world: World) -> None:
    forger = Forger(world.time)
    victim = impostor(world, lambda nonce: forger.document(forger.keyset(nonce, simulated=False)))
    with pytest.raises(PolicyViolationError) as refusal:
        victim.attest()
    assert refusal.value.finding_code == "keyset.simulated"


@pytest.mark.parametrize("status", [302, 307, 401, 503])
def test_an_attestation_that_is_redirected_or_refused_is_followed_nowhere(world: World, status: int) -> None:
    def redirect(_sent: Sent) -> Answered:
        return Answered(status=status, headers={"location": "https://attacker.example/"})

    victim = world.victim(world.network(on_request=redirect))
    with pytest.raises(ConnectionError, match=str(status)):
        victim.infer()
    assert victim.network.log == []


def test_after_a_refusal_the_same_client_still_works(world: World) -> None:
    """A forged answer costs an attempt, and leaves nothing behind."""
    forged = [Answered(status=200, body=b"{}")]
    victim = world.victim(world.network(on_request=lambda sent: forged.pop() if forged else sent))
    with pytest.raises(Exception, match="malformed"):
        victim.infer()
    assert victim.infer() == OUTPUT


def batched_document(world: World) -> tuple[bytes, AttestationDocument]:
    """An honest document for the third of five nonces that shared a quote."""
    nonces = [os.urandom(32) for _ in range(5)]

    async def ask() -> list[bytes]:
        requests = [compact_json({"nonce": base64url_encode(nonce)}) for nonce in nonces]
        door = world.app.attestation
        return await asyncio.gather(*(door.fresh(request, source=str(at)) for at, request in enumerate(requests)))

    document = parse_document(world.loop.run_until_complete(ask())[2])
    assert document.batch is not None
    assert (document.batch.index, document.batch.count, len(document.batch.path)) == (2, 5, 3)
    return nonces[2], document


def accept(world: World, nonce: bytes, document: AttestationDocument) -> None:
    accept_attestation(
        parse_document(encode_document(document)),
        insecure_simulation_policy(),
        service="blindai-srv",
        mode=Mode.FRESH,
        nonce=nonce,
        now=world.time.wall_s,
        elapsed_s=0.0,
    )


def is_refused(world: World, nonce: bytes, document: AttestationDocument) -> bool:
    """Any other exception than a refusal goes through, and fails the test."""
    try:
        accept(world, nonce, document)
    except RejectedEvidenceError:
        return True
    return False


def parts_of(document: AttestationDocument) -> dict[str, bytes]:
    item, batch = document.evidence[0], document.batch
    path = b"".join(batch.path) if batch else b""
    return {"keyset": document.keyset, "evidence": item.evidence, "path": path, **dict(item.endorsements)}


def with_part(document: AttestationDocument, part: str, data: bytes) -> AttestationDocument:
    item, batch = document.evidence[0], document.batch
    if part == "keyset":
        return dataclasses.replace(document, keyset=data)
    if part == "path" and batch:
        path = tuple(data[at : at + 32] for at in range(0, len(data), 32))
        return dataclasses.replace(document, batch=dataclasses.replace(batch, path=path))
    endorsements = tuple(sorted({**dict(item.endorsements), part: data}.items()))
    changed = (
        dataclasses.replace(item, evidence=data)
        if part == "evidence"
        else dataclasses.replace(item, endorsements=endorsements)
    )
    return dataclasses.replace(document, evidence=(changed,))
