"""Key schedules: both ends derive the same, as the formulas of sealed.md say, and everything bound changes the keys."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations
from typing import Any

import pytest
from channel.sealed_parts import ROUTE, Repeatable, Server, opened_session, private_half
from hypothesis import given
from hypothesis import strategies as st

from blindai.channel.exchange import (
    REQUEST_HEADER_BYTES,
    Exchange,
    SessionSecret,
    key_id,
    open_exchange,
    outer_digest,
    replay_digest,
    request_key_id,
    seal_exchange,
    session_header_fields,
)
from blindai.channel.hpke import HpkeKeyPair, seal
from blindai.errors import PeerKeyMismatchError, SealedMessageError
from blindai.hkdf import Expander, expand, extract

SERVER = Server()
KSID = SERVER.held.keyset_id
PUBLIC = SERVER.held.keyset.hpke_public_key
NONCE = bytes(range(32))
SESSION = opened_session(SERVER)


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf_expand(secret: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 §2.3 by hand."""
    blocks, block = b"", b""
    for number in range(1, size // 32 + 2):
        block = hmac.digest(secret, block + info + bytes([number]), "sha256")
        blocks += block
    return blocks[:size]


def lp(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def outer(route: bytes) -> bytes:
    return sha(b"blindai/1 outer\0", lp(b"POST"), lp(b"application/vnd.blindai.sealed"), lp(route))


def sealed(**changes: Any) -> Exchange:
    about: dict[str, Any] = {"public_key": PUBLIC, "keyset_id": KSID, "route": ROUTE, "random": Repeatable("exchange")}
    return seal_exchange(**{**about, **changes})


def opened(header: bytes, **changes: Any) -> Exchange:
    about: dict[str, Any] = {"keys": private_half(SERVER.held), "keyset_id": KSID, "route": ROUTE}
    return open_exchange(header, **{**about, **changes})


ONE = sealed()


# Formulas


@given(st.binary(max_size=80), st.binary(max_size=80), st.integers(1, 100))
def test_hkdf_is_rfc_5869(salt: bytes, secret: bytes, size: int) -> None:
    assert extract(salt, secret) == hmac.digest(salt or bytes(32), secret, "sha256")
    prk = extract(salt, secret)
    assert expand(prk, salt, size) == hkdf_expand(prk, salt, size)


def test_one_expander_gives_what_each_purpose_gets_alone() -> None:
    expander, secret = Expander(b"secret"), b"secret"
    for info, size in ((b"one", 44), (b"two", 32), (b"one", 44), (b"", 0), (b"long", 255 * 32 - 1)):
        assert expander.expand(info, size) == hkdf_expand(secret, info, size)
    with pytest.raises(ValueError, match="at most 8160 bytes"):
        expander.expand(b"", 255 * 32 + 1)


def test_key_id_and_outer_digest_are_the_specified_hashes() -> None:
    assert key_id(PUBLIC) == sha(b"blindai/1 kid\0", (0x647A).to_bytes(2, "big"), lp(PUBLIC))[:8] == SERVER.held.key_id
    assert outer_digest(ROUTE) == outer(ROUTE.encode())
    assert outer_digest("") == outer(b"")


def test_one_shot_header_and_keys_are_as_specified() -> None:
    header, content_key = ONE.header, Repeatable("exchange")(32)
    assert header[:16] == b"BSQ1" + key_id(PUBLIC) + b"\x64\x7a" + (1168).to_bytes(2, "big")
    assert len(header) == REQUEST_HEADER_BYTES == 16 + 1168
    prk = hmac.digest(sha(b"blindai/1 request-salt\0", header), content_key, "sha256")
    assert ONE.request_keys == hkdf_expand(prk, b"blindai/1 request-key\0", 44)
    assert ONE.answer_prefix == b"BSR1" + key_id(PUBLIC)
    transcript = sha(b"blindai/1 transcript\0", header)
    salt = sha(b"blindai/1 response-salt\0", key_id(PUBLIC), NONCE, transcript)
    answer_prk = hmac.digest(salt, content_key, "sha256")
    expected = hkdf_expand(answer_prk, b"blindai/1 response-key\0", 44)
    assert ONE.answer_keys(ONE.answer_prefix + NONCE) == expected


def test_the_content_key_is_sealed_under_the_specified_info() -> None:
    info = b"blindai/1 request\0" + b"\x64\x7a" + key_id(PUBLIC) + KSID + outer(ROUTE.encode())
    assert private_half(SERVER.held).open(ONE.header[16:], info=info) == Repeatable("exchange")(32)


def test_replay_digest_is_the_specified_hash() -> None:
    assert replay_digest(ONE.header) == sha(b"blindai/1 replay\0", key_id(PUBLIC), ONE.header[16:])[:16]


def test_session_secrets_and_keys_are_as_specified() -> None:
    answer_header = ONE.answer_prefix + NONCE
    secret = SessionSecret.after(ONE, keyset_id=KSID, answer_header=answer_header)
    transcript = sha(b"blindai/1 transcript\0", ONE.header)
    salt = sha(b"blindai/1 session-salt\0", KSID, key_id(PUBLIC), NONCE, transcript)
    prk = hmac.digest(salt, Repeatable("exchange")(32), "sha256")
    assert secret.prk == prk
    assert secret.session_id == hkdf_expand(prk, b"blindai/1 session-id\0", 16)
    header = secret.header(2**32 - 1, Repeatable("rnd"))
    assert header == b"BSS1" + secret.session_id + (2**32 - 1).to_bytes(8, "big") + Repeatable("rnd")(16)
    exchange = secret.exchange(header, route=ROUTE)
    info = b"blindai/1 session-request\0" + header + outer(ROUTE.encode())
    assert exchange.request_keys == hkdf_expand(prk, info, 44)
    answer = b"BST1" + (2**32 - 1).to_bytes(8, "big") + NONCE
    answer_info = b"blindai/1 session-response\0" + sha(b"blindai/1 transcript\0", header) + answer
    assert exchange.answer_keys(answer) == hkdf_expand(prk, answer_info, 44)


# Both ends


def test_both_ends_derive_the_same() -> None:
    assert opened(ONE.header) == ONE
    secrets = {
        SessionSecret.after(exchange, keyset_id=KSID, answer_header=ONE.answer_prefix + NONCE)
        for exchange in (ONE, opened(ONE.header))
    }
    assert len(secrets) == 1


def test_one_shot_and_session_exchanges_know_what_they_are() -> None:
    assert not ONE.in_session
    assert SESSION.exchange(SESSION.header(0, Repeatable("rnd")), route="").in_session


def test_sealing_twice_gives_different_headers_even_with_the_same_content_key() -> None:
    assert sealed().header != sealed().header


@pytest.mark.parametrize(
    "changes",
    [
        {"route": ""},
        {"route": ROUTE + "A"},
        {"keyset_id": bytes(32)},
        {"keyset_id": KSID[::-1]},
        {"keys": HpkeKeyPair(Repeatable("another key"))},
    ],
)
def test_another_route_keyset_or_key_does_not_open(changes: dict[str, Any]) -> None:
    with pytest.raises(SealedMessageError):
        opened(ONE.header, **changes)


def test_another_key_id_in_the_header_does_not_open() -> None:
    with pytest.raises(SealedMessageError):
        opened(ONE.header[:4] + bytes(8) + ONE.header[12:])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_content_key_of_another_size_is_refused(size: int) -> None:
    info = b"blindai/1 request\0" + b"\x64\x7a" + key_id(PUBLIC) + KSID + outer(ROUTE.encode())
    wrapped = seal(bytes(size), PUBLIC, info=info)
    with pytest.raises(SealedMessageError):
        private_half(SERVER.held).open(wrapped, info=info)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        ONE.header[:-1],
        ONE.header + b"\0",
        b"BSQ2" + ONE.header[4:],
        b"BSS1" + ONE.header[4:],
        ONE.header[:12] + b"\x00\x20" + ONE.header[14:],
        ONE.header[:14] + b"\x04\x91" + ONE.header[16:],
    ],
    ids=["empty", "short", "long", "magic", "session magic", "kem", "len"],
)
def test_another_form_of_header_is_refused(header: bytes) -> None:
    for reads in (request_key_id, opened, replay_digest):
        with pytest.raises(SealedMessageError):
            reads(header)


@given(st.binary(max_size=60) | st.binary(min_size=REQUEST_HEADER_BYTES, max_size=REQUEST_HEADER_BYTES))
def test_arbitrary_headers_raise_only_our_error(header: bytes) -> None:
    for reads in (request_key_id, opened, session_header_fields):
        with pytest.raises(SealedMessageError):
            reads(header)


@given(st.binary(min_size=1168, max_size=1168))
def test_arbitrary_wrapped_keys_raise_only_our_error(wrapped: bytes) -> None:
    with pytest.raises(SealedMessageError):
        opened(ONE.header[:16] + wrapped)


@given(st.binary(max_size=64) | st.binary(min_size=1216, max_size=1216))
def test_sealing_to_anything_but_a_public_key_raises_only_our_error(public_key: bytes) -> None:
    try:
        sealed(public_key=public_key)
    except PeerKeyMismatchError:
        return
    assert len(public_key) == len(PUBLIC)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_sealing_to_a_point_of_low_order_is_refused(point: bytes) -> None:
    with pytest.raises(PeerKeyMismatchError):
        sealed(public_key=PUBLIC[:1184] + point)


def test_opening_a_wrapped_key_with_a_point_of_low_order_is_refused() -> None:
    with pytest.raises(SealedMessageError):
        opened(ONE.header[: 16 + 1088] + bytes(32) + ONE.header[16 + 1120 :])


# What keys are bound to


def session_keys(*, header: bytes | None = None, route: str = ROUTE, secret: SessionSecret = SESSION) -> bytes:
    return secret.exchange(header or SESSION.header(7, Repeatable("rnd")), route=route).request_keys


def test_sid_q_rnd_route_and_secret_all_change_the_keys_of_a_request_in_a_session() -> None:
    header = SESSION.header(7, Repeatable("rnd"))
    keys = [
        session_keys(),
        session_keys(header=SESSION.header(8, Repeatable("rnd"))),
        session_keys(header=SESSION.header(7, Repeatable("other rnd"))),
        session_keys(header=header[:4] + bytes(16) + header[20:]),
        session_keys(route=""),
        session_keys(secret=SessionSecret(prk=bytes(32), session_id=SESSION.session_id)),
    ]
    assert all(one != other for one, other in combinations(keys, 2))


def test_nonce_and_request_change_the_keys_of_an_answer() -> None:
    for one, other in (
        (ONE, sealed(random=Repeatable("another"))),
        (
            SESSION.exchange(SESSION.header(7, Repeatable("rnd")), route=ROUTE),
            SESSION.exchange(SESSION.header(7, Repeatable("other rnd")), route=ROUTE),
        ),
    ):
        keys = {one.answer_keys(one.answer_prefix + nonce) for nonce in (NONCE, bytes(32))}
        keys.add(other.answer_keys(other.answer_prefix + NONCE))
        keys.add(one.request_keys)
        assert len(keys) == 4


def test_opening_answer_and_keyset_change_the_session() -> None:
    answer_header = ONE.answer_prefix + NONCE
    other = sealed(random=Repeatable("another"))
    secrets = [
        SessionSecret.after(ONE, keyset_id=KSID, answer_header=answer_header),
        SessionSecret.after(ONE, keyset_id=bytes(32), answer_header=answer_header),
        SessionSecret.after(ONE, keyset_id=KSID, answer_header=ONE.answer_prefix + bytes(32)),
        SessionSecret.after(other, keyset_id=KSID, answer_header=answer_header),
    ]
    assert len({secret.prk for secret in secrets}) == len({secret.session_id for secret in secrets}) == 4


@pytest.mark.parametrize("cut", [0, 11, 43])
def test_an_answer_header_of_another_form_is_refused(cut: int) -> None:
    whole = ONE.answer_prefix + NONCE
    for header in (whole[:cut], whole + b"\0", b"BST1" + whole[4:], whole[:4] + bytes(8) + whole[12:]):
        with pytest.raises(SealedMessageError):
            ONE.answer_keys(header)


def test_an_answer_in_a_session_names_its_request() -> None:
    exchange = SESSION.exchange(SESSION.header(7, Repeatable("rnd")), route=ROUTE)
    exchange.answer_keys(b"BST1" + (7).to_bytes(8, "big") + NONCE)
    for prefix in (b"BST1" + (8).to_bytes(8, "big"), b"BSR1" + (7).to_bytes(8, "big")):
        with pytest.raises(SealedMessageError):
            exchange.answer_keys(prefix + NONCE)


@given(st.integers(0, 2**64 - 1))
def test_session_header_round_trip(number: int) -> None:
    header = SESSION.header(number, Repeatable("rnd"))
    assert session_header_fields(header) == (SESSION.session_id, number)
    for other in (header[:-1], header + b"\0", b"BSQ1" + header[4:]):
        with pytest.raises(SealedMessageError):
            session_header_fields(other)


def test_exchanges_do_not_show_keys_when_printed() -> None:
    for shown in (repr(ONE), repr(SESSION)):
        assert "secret=" not in shown
        assert "request_keys=" not in shown
        assert "prk=" not in shown
