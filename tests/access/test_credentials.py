"""What lets somebody in, and what does not: keys and tokens, each failure with the same words."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from access.tenants import ISSUER, House, Keys, claims_at, signed
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blindai.errors import UnauthenticatedError
from blindai.server.access import Role, open_principal
from blindai.server.authentication import Access
from blindai.server.credentials import draw_key, key_digest, key_id_of
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = "the credential is missing, not known here, or has ended"


@pytest.fixture
def access(house: House) -> Access:
    return house.app.sealed.service.access


def refused(access: Access, authorization: str | None) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        access.authenticate(authorization, "client")
    assert str(caught.value) == WORDS
    assert caught.value.__cause__ is None


def test_a_key_names_itself_and_holds_256_random_bits() -> None:
    key_id, key = draw_key(os.urandom)
    assert key_id_of(key) == key_id
    assert len(key) == len(f"blindai_{key_id}_") + 43
    assert key_digest(key) == hashlib.sha256(key.encode()).digest()
    assert draw_key(os.urandom, "mine")[1] != draw_key(os.urandom, "mine")[1]


def test_a_key_is_its_tenants_with_its_roles(access: Access, keys: Keys) -> None:
    principal = access.authenticate(f"Bearer {keys.text['beta-upload']}", "client")
    assert (principal.tenant, principal.share, principal.roles) == ("beta", "beta", frozenset({Role.UPLOAD}))
    assert access.authenticate(f"bearer {keys.text['beta-upload']}", "other client") == principal


@pytest.mark.parametrize(
    "change",
    [
        lambda _key: None,
        lambda _key: "",
        lambda key: key,
        lambda key: f"Basic {key}",
        lambda key: f"Bearer  {key}",
        lambda key: f"Bearer {key} ",
        lambda key: f"Bearer {key[:-1]}{'A' if key[-1] != 'A' else 'B'}",
        lambda key: f"Bearer {key[:-1]}",
        lambda key: f"Bearer {key.replace('alpha-infer', 'nobody')}",
        lambda key: f"Bearer {key.replace('alpha-infer', 'beta-infer')}",
        lambda _key: "Bearer blindai_",
        lambda _key: "Bearer ",
        lambda _key: "Bearer a.b.c",
        lambda _key: "Bearer é",
    ],
)
def test_anything_but_the_key_is_refused(access: Access, keys: Keys, change: Callable[[str], str | None]) -> None:
    refused(access, change(keys.text["alpha-infer"]))


def test_a_key_that_has_ended_is_refused(access: Access, keys: Keys, house: House) -> None:
    refused(access, f"Bearer {keys.text['alpha-ended']}")
    house.time.pass_s(-2)
    access.authenticate(f"Bearer {keys.text['alpha-ended']}", "")


def test_secrets_are_compared_in_constant_time_and_unknown_ids_as_known_ones(
    access: Access, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return original(one, other)

    monkeypatch.setattr("blindai.server.credentials.hmac.compare_digest", counted)
    key = keys.text["alpha-infer"]
    access.authenticate(f"Bearer {key}", "")
    refused(access, f"Bearer {key.replace('alpha-infer', 'beta-infer')}")
    refused(access, f"Bearer {key.replace('alpha-infer', 'nobody')}")
    assert compared == [(32, 32)] * 3


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("typ", ["JWT", "at+jwt"])
def test_a_token_is_its_issuers_tenants(build: Callable[..., House], keys: Keys, alg: str, typ: str) -> None:
    house = build(alg=alg)
    token = signed(keys, claims_at(house.time.wall_s), {"alg": alg, "typ": typ, "kid": "k"})
    principal = house.app.sealed.service.access.authenticate(f"Bearer {token}", "")
    assert (principal.tenant, principal.roles, principal.subject) == ("alpha", frozenset({Role.INFER}), "dr-who")


def test_a_token_gets_no_role_beyond_its_issuers(access: Access, house: House) -> None:
    token = house.token(roles=["infer", "upload", "admin"])
    assert access.authenticate(f"Bearer {token}", "").roles == {Role.INFER, Role.UPLOAD}
    assert access.authenticate(f"Bearer {house.token(roles=['admin'])}", "").roles == frozenset()


DAY_S = 24 * 3600


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://other.example"}, {"iss": None}, {"iss": 1}, {"iss": [ISSUER]},
        {"aud": "other-srv"}, {"aud": None}, {"aud": []}, {"aud": ["other-srv"]}, {"aud": {"blindai-srv": 1}},
        {"sub": None}, {"sub": ""}, {"sub": 7},
        {"exp": None}, {"exp": -1}, {"exp": "later"}, {"exp": 0}, {"exp": True}, {"exp": 1.5},
        {"iat": None}, {"iat": "now"},
        {"roles": None}, {"roles": "infer"}, {"roles": ["root"]}, {"roles": [["infer"]]},
        {"tenant": "beta"}, {"jti": ""}, {"jti": 3}, {"nbf": "now"},
    ],
    ids=str,
)  # fmt: skip
def test_a_token_that_says_anything_else_is_refused(access: Access, house: House, changed: dict[str, Any]) -> None:
    access.authenticate(f"Bearer {house.token()}", "")
    refused(access, f"Bearer {house.token(**changed)}")


@pytest.mark.parametrize(
    ("iat", "exp", "nbf", "accepted"),
    [
        (0, DAY_S, None, True), (0, DAY_S + 1, None, False),
        (-10, 1, None, True), (-10, 0, None, False),
        (60, 100, None, True), (61, 100, None, False),
        (-10, 100, 60, True), (-10, 100, 61, False),
    ],
)  # fmt: skip
def test_the_times_of_a_token(
    access: Access, house: House, *, iat: int, exp: int, nbf: int | None, accepted: bool
) -> None:
    now = int(house.time.wall_s)
    token = house.token(iat=now + iat, exp=now + exp, nbf=None if nbf is None else now + nbf)
    if accepted:
        access.authenticate(f"Bearer {token}", "")
    else:
        refused(access, f"Bearer {token}")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "typ": "JWT"}, {"alg": "NONE", "typ": "JWT"}, {"alg": "HS256", "typ": "JWT"},
        {"alg": "Ed25519", "typ": "JWT"}, {"alg": "ES256", "typ": "JWT"}, {"typ": "JWT"}, {"alg": "EdDSA"},
        {"alg": "EdDSA", "typ": "blindai-receipt+jws"}, {"alg": "EdDSA", "typ": "JWT", "crit": ["exp"]},
        {"alg": "EdDSA", "typ": "JWT", "jwk": {}}, {"alg": "EdDSA", "typ": "JWT", "b64": False}, {},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_is_not_the_configurations_is_refused_even_if_well_signed(
    access: Access, house: House, keys: Keys, header: dict[str, Any]
) -> None:
    refused(access, f"Bearer {signed(keys, claims_at(house.time.wall_s), header)}")


def test_no_confusion_of_algorithms(access: Access, house: House, keys: Keys) -> None:
    """The public key as an HMAC key, and no signature at all."""
    claims = claims_at(house.time.wall_s)
    for alg in ("HS256", "EdDSA", "none"):
        parts = [base64url_encode(json.dumps(part).encode()) for part in ({"alg": alg, "typ": "JWT"}, claims)]
        signing = ".".join(parts)
        public = keys.issuer.public_key().public_bytes_raw()
        refused(access, f"Bearer {signing}.{base64url_encode(hmac.digest(public, signing.encode(), 'sha256'))}")
        refused(access, f"Bearer {signing}.")
        refused(access, f"Bearer {signing}")


def test_no_changed_character_of_a_token_is_accepted(access: Access, house: House) -> None:
    token = house.token()
    for at in range(len(token)):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        refused(access, f"Bearer {changed}")


def test_anothers_signature_is_refused(access: Access, house: House, keys: Keys) -> None:
    other = Keys(text=keys.text, issuer=Ed25519PrivateKey.generate())
    refused(access, f"Bearer {signed(other, claims_at(house.time.wall_s))}")


def test_open_access_looks_at_no_credential_and_keeps_clients_apart() -> None:
    access = Access(None, service="s", wall=lambda: 0.0)
    assert access.authenticate("Bearer whatever", "a") == open_principal("a")
    assert access.authenticate(None, "a").share != access.authenticate(None, "b").share


def test_sessions_are_counted_by_subject_and_not_by_token(access: Access, house: House, keys: Keys) -> None:
    first, second = (access.authenticate(f"Bearer {house.token(jti=jti)}", "") for jti in ("t1", "t2"))
    assert first != second
    assert first.counted_as == second.counted_as
    key = access.authenticate(f"Bearer {keys.text['alpha-infer']}", "")
    assert key.counted_as not in {first.counted_as, "alpha"}


def test_nothing_shows_a_secret(access: Access, house: House, keys: Keys) -> None:
    token = house.token()
    principal = access.authenticate(f"Bearer {token}", "")
    listed = access.keys("alpha")
    shown = repr([principal, listed, house.person("alpha-infer").connection.settings, keys.issuer, access])
    for secret in (*keys.text.values(), token, "dr-who"):
        assert secret not in shown
        assert hashlib.sha256(secret.encode()).hexdigest()[:8] not in shown
