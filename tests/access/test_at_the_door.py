"""Credentials in sealed requests: nothing is spent or run without one, and a session is its principal."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from functools import partial
from typing import TYPE_CHECKING

import pytest
from attacks.world import Ask, is_in_session, seal_in_session, seal_one_shot

from blindai.client.attest_flow import attest
from blindai.client.credential import credential_source
from blindai.client.options import without_keys
from blindai.errors import ForbiddenError, InvalidInputError, ModelNotFoundError, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from access.tenants import House

LIST = Ask(method="POST", path="/v2/repository/index")


def with_key(ask: Ask, key: str | None) -> Ask:
    return ask if key is None else dataclasses.replace(ask, headers=(("authorization", f"Bearer {key}"),))


def test_without_a_credential_nobody_comes_in(house: House) -> None:
    for person in (house.person(), house.person("blindai_nobody_" + "A" * 43), house.person(token="a.b.c")):
        with pytest.raises(UnauthenticatedError):
            person.models()
        assert len(house.app.sealed.sessions) == 0


def test_a_refused_request_spends_nothing(house: House) -> None:
    network = house.network()
    keyset = network.drive(attest(house.person(network=network).connection))

    def spent() -> int:
        return sum(len(held._seen) for held in house.app.sealed.keys._by_id.values())

    for key in (None, "blindai_nobody_" + "A" * 43):
        message = seal_one_shot(keyset, with_key(LIST, key), opens_session=True)
        for _ in range(2):  # the same bytes again meet the same refusal, and not the replay set
            answered = network.deliver(message.sent())
            answer = message.open(answered.body)
            assert (answered.status, answer.head.status, answer.head.session) == (200, 401, None)
            assert b'"unauthenticated"' in answer.body
        assert spent() == 0
    good = seal_one_shot(keyset, with_key(LIST, house.keys.text["alpha-infer"]))
    statuses = [good.open(network.deliver(good.sent()).body).head.status for _ in range(2)]
    assert statuses == [200, 409]
    assert spent() == 1


def test_a_refused_upload_stores_nothing(house: House, model: Path) -> None:
    with pytest.raises(ForbiddenError, match="does not allow"):
        house.person("alpha-infer").upload("m", model)
    with pytest.raises(UnauthenticatedError):
        house.person("alpha-ended").upload("m", model)
    assert house.app.sealed.service.store.models(tenant="alpha") == ()
    assert [path for path in (model.parent / "house0" / "store").iterdir() if path.is_file()] == []


def test_a_session_needs_no_credential_inside_and_takes_none(house: House) -> None:
    person = house.person("alpha-infer")
    for _ in range(3):
        person.models()
    sent = [one for one, _ in person.network.log if one.path == "/v1/sealed"]
    assert [is_in_session(one) for one in sent] == [False, True, True]
    keyset, session = person.connection._session or pytest.fail("no session")
    smuggled = seal_in_session(session.secret, keyset, with_key(LIST, house.keys.text["beta-admin"]), number=9)
    assert person.network.deliver(smuggled.sent()).status == 400


def test_revocation_meets_a_session_at_its_next_request(house: House) -> None:
    admin, person = house.person("alpha-admin"), house.person("alpha-infer")
    person.models()
    person.models()
    assert len(house.app.sealed.sessions) == 1
    admin.access.revoke_key("alpha-infer")
    with pytest.raises(UnauthenticatedError):
        person.models()
    assert len(house.app.sealed.sessions) == 0
    last = [is_in_session(sent) for sent, _ in person.network.log][-2:]
    assert last == [True, False]  # refused in the session, and once more with the key itself
    with pytest.raises(UnauthenticatedError):
        house.person("alpha-infer").models()


@pytest.mark.parametrize("by", ["jti", "sub", "issued_before"])
def test_a_tokens_revocation_meets_its_session_and_can_be_lifted(house: House, by: str) -> None:
    admin, person = house.person("alpha-admin"), house.person(token=house.token())
    spared = house.person(token=house.token(jti="t2", sub="other", iat=int(house.time.wall_s) + 50))
    for one in (person, spared):
        one.models()
        one.models()
    later = dt.datetime.fromtimestamp(house.time.wall_s + 10, dt.UTC)
    revocation = {
        "jti": lambda: admin.access.revoke_tokens(jti="t1"),
        "sub": lambda: admin.access.revoke_tokens(sub="dr-who"),
        "issued_before": lambda: admin.access.revoke_tokens(issued_before=later),
    }[by]()
    with pytest.raises(UnauthenticatedError):
        person.models()
    spared.models()
    admin.access.lift(revocation)
    person.models()


def test_another_tenant_revokes_nothing_here(house: House) -> None:
    beta, person = house.person("beta-admin"), house.person(token=house.token())
    beta.access.revoke_tokens(sub="dr-who")
    with pytest.raises(ModelNotFoundError):
        beta.access.revoke_key("alpha-infer")
    person.models()
    house.person("alpha-infer").models()


def test_a_session_ends_with_its_token_and_a_fresh_token_goes_on(house: House) -> None:
    drawn: list[str] = []

    def draw() -> str:
        drawn.append(house.token(exp=int(house.time.wall_s) + 100))
        return drawn[-1]

    person = house.person(token=draw)
    for _ in range(5):
        person.models()
        house.time.pass_s(1)
    assert len(drawn) == 1
    house.time.pass_s(96)
    person.models()
    assert len(drawn) == 2


def test_a_refusal_in_a_session_is_tried_once_with_a_fresh_token_even_for_management(house: House, model: Path) -> None:
    tokens = [house.token(jti=jti, roles=["upload"]) for jti in ("t2", "t1")]
    person = house.person(token=lambda: tokens.pop() if len(tokens) > 1 else tokens[0])
    person.models()
    house.person("alpha-admin").access.revoke_tokens(jti="t1")
    person.upload("m", model)
    assert person.names() == ["m"]


def test_a_key_made_at_run_time_counts_until_it_is_revoked_or_ends(house: House) -> None:
    admin = house.person("alpha-admin")
    ends = dt.datetime.fromtimestamp(house.time.wall_s + 100, dt.UTC)
    first, second = admin.access.create_key(), admin.access.create_key(("infer", "upload"), not_after=ends)
    for made in (first, second):
        house.person(made.key).models()
        assert made.key not in repr(made)
    listed = {key.id: key for key in tuple(admin.access.keys())}
    assert set(listed) == {*(name for name in house.keys.text if name.startswith("alpha")), first.id, second.id}
    assert (listed[second.id].roles, listed[second.id].not_after) == (("infer", "upload"), ends)
    assert listed[first.id].last_used == dt.datetime.fromtimestamp(house.time.wall_s, dt.UTC).date()
    assert listed["alpha-upload"].last_used is None
    admin.access.revoke_key(first.id)
    house.time.pass_s(100)
    for made in (first, second):
        with pytest.raises(UnauthenticatedError):
            house.person(made.key).models()


def test_a_principal_has_so_many_sessions_whatever_it_calls_itself(house: House) -> None:
    for _ in range(66):
        house.person("alpha-infer").models()  # each with a client token of its own
    house.person("beta-infer").models()
    assert len(house.app.sealed.sessions) == 64 + 1


@pytest.mark.parametrize("given", ["", " ", "key\n", "ké", "k" * 8001, 7])
def test_what_cannot_be_a_credential_is_refused_before_anything_is_sent(given: str) -> None:
    drawn = credential_source(None, lambda: given)
    assert drawn is not None
    for source in (lambda: credential_source(given, None), drawn):
        with pytest.raises(InvalidInputError, match="this cannot be an API key or token: 1 to 8000") as caught:
            source()
        assert len(str(caught.value)) < 100
    with pytest.raises(InvalidInputError, match="exclude"):
        credential_source("a", "b")


def test_a_closed_client_forgets_its_credential(house: House) -> None:
    connection = house.person("alpha-infer").connection
    assert without_keys(connection).settings.credential is None
    assert connection.settings.credential is not None


def test_the_secret_is_in_no_outer_byte_log_or_error(
    house: House, model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = house.token()
    people = [house.person("alpha-admin"), house.person(token=token), house.person("alpha-ended")]
    said: list[str] = []
    actions: list[Callable[[], object]] = [
        lambda: people[0].upload("m", model),
        people[0].access.create_key,
        *(person.models for person in people * 2),
        *(partial(person.access.revoke_key, "alpha-ended") for person in people),
    ]
    for action in actions:
        try:
            action()
        except (UnauthenticatedError, ForbiddenError) as error:
            said.append(f"{error!r} {error} {error.hint}")
    assert len(said) == 4
    outer = b"".join(
        repr(sent).encode() + sent.body + repr(answered).encode() + answered.body
        for person in people
        for sent, answered in person.network.log
    )
    shown = "".join([caplog.text, *capfd.readouterr(), *said, repr(people)]).encode()
    for secret in (*house.keys.text.values(), *(text[-43:] for text in house.keys.text.values()), token, "dr-who"):
        assert secret.encode() not in outer
        assert secret.encode() not in shown
    assert len(outer) > 10_000
