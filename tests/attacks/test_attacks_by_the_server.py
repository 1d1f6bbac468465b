"""A server that lies inside its sealed, signed answers: about another model, or to be sent the data once more.

Attested code does not; a simulation, or code with a fault, may, and a receipt is worth what the client compares.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from attacks.world import INPUT, MODEL, OUTPUT, infer_ask, seal_one_shot
from msgspec import structs

from blindai.attestation.policy import insecure_simulation_policy
from blindai.client import flows
from blindai.client.proof import Proof, verify_proof
from blindai.errors import (
    InvalidInputError,
    InvalidReceiptError,
    ModelChangedError,
    ModelDigestMismatchError,
    ModelNotFoundError,
)
from blindai.oip.rest import HEADER_LENGTH
from blindai.server import sealed_answer
from blindai.server.calls import error_reply
from blindai.server.dispatch import dispatch
from blindai.server.execution_providers import engine_text
from blindai.server.infer import identity
from blindai.server.runner import ModelFace

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.world import Victim, World

    from blindai.receipts import ModelIdentity
    from blindai.server.calls import Call, Reply
    from blindai.server.dispatch import Service

OTHER_DIGEST = "sha256:" + "ab" * 32


class Liar:
    """Changes what the server answers before it is signed and sealed; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.changes: list[Callable[[Call, Reply], Reply]] = []

    async def dispatch(self, service: Service, call: Call) -> Reply:
        reply = await dispatch(service, call)
        self.asked.append((call.method, call.path))
        for change in self.changes:
            reply = change(call, reply)
        return reply

    def count(self, end: str) -> int:
        return sum(path.endswith(end) for _, path in self.asked)


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Liar:
    liar = Liar()
    monkeypatch.setattr(sealed_answer, "dispatch", liar.dispatch)
    return liar


def model_of(world: World) -> ModelIdentity:
    face = ModelFace(inputs=(), outputs=(), precision="fp32", providers=("cpu",))
    return identity(world.app.sealed.service.store.resolve(MODEL), face)


def infer(victim: Victim, reference: str = MODEL, version: str | None = None, values: Any = None) -> list[float]:
    data = np.array(INPUT, dtype=np.float32) if values is None else values
    result = victim.network.drive(flows.infer(victim.connection, reference, data, version=version, outputs=()))
    return [float(value) for value in result["y"]]


def signed_about(**changes: str) -> Callable[[Call, Reply], Reply]:
    """A receipt about another model."""

    def change(_call: Call, reply: Reply) -> Reply:
        model = structs.replace(reply.model, **changes) if reply.model else None
        return structs.replace(reply, model=model)

    return change


def answered_by(**changes: str) -> Callable[[Call, Reply], Reply]:
    """An answer that names another model in its JSON."""

    def change(_call: Call, reply: Reply) -> Reply:
        if reply.model is None:
            return reply
        headers = dict(reply.headers)
        body, length = b"".join(reply.body), int(headers[HEADER_LENGTH])
        head = json.dumps({**json.loads(body[:length]), **changes}).encode()
        headers[HEADER_LENGTH] = str(len(head))
        return structs.replace(reply, headers=tuple(headers.items()), body=(head, body[length:]))

    return change


def described_as(method: str = "GET", **changes: str) -> Callable[[Call, Reply], Reply]:
    """An answer in JSON (metadata, an upload's) with other members."""

    def change(call: Call, reply: Reply) -> Reply:
        if call.method != method or reply.model is not None:
            return reply
        return structs.replace(reply, body=(json.dumps({**json.loads(b"".join(reply.body)), **changes}).encode(),))

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"version": "2"},
        {"digest": OTHER_DIGEST},
        {"engine": "onnxruntime 0.1"},
        {"engine": "onnxruntime"},
        {"engine": f"{engine_text(('cpu',))}, onnxruntime-openvino 1.24.1"},
        {"precision": "int4"},
    ],
    ids=str,
)
@pytest.mark.parametrize("cached", [False, True], ids=["first", "again"])
def test_a_receipt_about_another_model_is_refused(
    world: World,
    liar: Liar,
    changes: dict[str, str],
    cached: bool,  # noqa: FBT001  # a parameter
) -> None:
    victim = world.victim()
    if cached:
        assert infer(victim) == OUTPUT
    liar.changes = [signed_about(**changes)]
    with pytest.raises(InvalidReceiptError):
        infer(victim)
    assert liar.count("/infer") == 1 + cached  # whoever lies is not sent the data once more


def test_a_proof_of_an_engine_that_was_not_attested_is_refused(world: World, liar: Liar) -> None:
    victim = world.victim()
    keyset = victim.attest()

    def proof() -> Proof:
        message = seal_one_shot(keyset, infer_ask())
        answer = message.open(victim.network.deliver(message.sent()).body)
        return Proof(receipt=answer.trailer.receipt, document=dataclasses.replace(keyset.document, batch=None))

    judge: dict[str, Any] = {"service": "blindai-srv", "now": world.time.wall_s}
    assert verify_proof(proof(), insecure_simulation_policy(), **judge).receipt.model == model_of(world)
    liar.changes = [signed_about(engine="onnxruntime 0.1")]
    with pytest.raises(InvalidReceiptError, match="engine"):
        verify_proof(proof(), insecure_simulation_policy(), **judge)


def test_a_receipt_about_no_model_is_refused(world: World, liar: Liar) -> None:
    liar.changes = [lambda _call, reply: structs.replace(reply, model=None)]
    with pytest.raises(InvalidReceiptError, match="names no model"):
        infer(world.victim())


def test_a_receipt_that_names_a_model_where_none_ran_is_refused(world: World, liar: Liar) -> None:
    model = model_of(world)
    liar.changes = [lambda _call, reply: structs.replace(reply, model=model)]
    victim = world.victim()
    for call in (
        victim.model_names,
        lambda: victim.upload("named"),
        lambda: victim.delete("named"),
        lambda: victim.network.drive(flows.read_metadata(victim.connection, MODEL, None)),
    ):
        with pytest.raises(InvalidReceiptError, match="none was to run"):
            call()


def test_an_answer_that_names_another_model_is_refused(world: World, liar: Liar) -> None:
    liar.changes = [answered_by(model_name="other")]
    with pytest.raises(InvalidReceiptError, match="answer names another model"):
        infer(world.victim())
    liar.changes = [answered_by(model_version="2")]
    with pytest.raises(ModelNotFoundError):  # asked to describe that version, the server does not know it
        infer(world.victim())
    liar.changes = [answered_by(model_version="2"), signed_about(version="2")]
    with pytest.raises(ModelNotFoundError):
        infer(world.victim())
    with pytest.raises(InvalidReceiptError):
        infer(world.victim(), version="1")


def test_another_model_is_refused_for_a_pinned_digest_however_consistently_the_server_lies(
    world: World, liar: Liar
) -> None:
    pinned = f"{MODEL}@{model_of(world).digest}"
    victim = world.victim()
    assert infer(victim, pinned) == OUTPUT
    liar.changes = [described_as(digest=OTHER_DIGEST), signed_about(digest=OTHER_DIGEST)]
    with pytest.raises(InvalidReceiptError):
        infer(victim, pinned)
    runs = world.effects.runs
    with pytest.raises(ModelDigestMismatchError):
        infer(world.victim(), pinned)
    assert world.effects.runs == runs  # the data never left


@pytest.mark.parametrize("changes", [{"digest": OTHER_DIGEST}, {"name": "other"}, {"version": "2"}], ids=str)
def test_metadata_of_another_model_than_was_asked_for_is_refused(
    world: World, liar: Liar, changes: dict[str, str]
) -> None:
    liar.changes = [described_as(**changes)]
    victim = world.victim()
    asked = f"{MODEL}@{model_of(world).digest}"
    with pytest.raises(ModelDigestMismatchError, match=f"another {next(iter(changes))} "):
        victim.network.drive(flows.read_metadata(victim.connection, asked, "1"))


@pytest.mark.parametrize(("changes", "version"), [({"name": "other"}, None), ({"version": "2"}, "1")])
def test_an_upload_that_is_stored_as_another_model_is_refused(
    world: World, liar: Liar, changes: dict[str, str], version: str | None
) -> None:
    liar.changes = [described_as("POST", **changes)]
    victim = world.victim()
    files = flows.ModelFiles(name=MODEL, version=version, paths=(world.model_path,), default_shape=None, load=False)
    with pytest.raises(ModelDigestMismatchError, match="another model"):
        victim.network.drive(flows.upload_model(victim.connection, files, None))


def refusing(error: Exception) -> Callable[[Call, Reply], Reply]:
    """Inference is refused, after its data were read."""

    def change(call: Call, reply: Reply) -> Reply:
        return error_reply(error) if call.path.endswith("/infer") else reply

    return change


@pytest.mark.parametrize(("error", "sent"), [(InvalidInputError("no"), 1), (ModelChangedError("new"), 2)])
def test_data_leave_again_only_for_a_model_that_was_replaced(
    world: World, liar: Liar, error: Exception, sent: int
) -> None:
    victim = world.victim()
    assert infer(victim) == OUTPUT
    liar.asked.clear()
    liar.changes = [refusing(error)]
    with pytest.raises(type(error)):
        infer(victim)
    assert liar.count("/infer") == sent


def test_data_that_fit_neither_old_nor_new_metadata_do_not_leave(world: World, liar: Liar) -> None:
    victim = world.victim()
    assert infer(victim) == OUTPUT
    liar.asked.clear()
    with pytest.raises(InvalidInputError):
        infer(victim, values={"no such input": [1.0]})
    assert liar.asked == [("GET", f"/v2/models/{MODEL}")]
