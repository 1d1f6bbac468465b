"""Whole messages: every byte counts, frames cannot be moved, and an answer is to exactly what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from channel.sealed_parts import (
    ROUTE,
    Read,
    Repeatable,
    Sent,
    Server,
    flips,
    head_plaintext,
    hostile_frame,
    opened_session,
    pieces,
    plaintext,
    read_frames,
    request_head,
    split_frames,
    write,
)
from hypothesis import given
from hypothesis import strategies as st

from blindai.channel.exchange import (
    ANSWER_HEADER_BYTES,
    SESSION_HEADER_BYTES,
    SessionSecret,
    session_header_fields,
)
from blindai.channel.frames import MAX_DATA_BYTES
from blindai.channel.heads import ResponseHead, Trailer, WireError
from blindai.channel.sealed import Answer, AnswerReader, AnswerWriter, RequestReader, RequestWriter
from blindai.errors import SealedMessageError, TruncatedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

REFUSED = (SealedMessageError, TruncatedMessageError)
BODY = bytes(range(256)) * 9
SERVER = Server()
SENT = SERVER.seal((BODY,))
SESSION = opened_session(SERVER)


def seal_in_session(body: Iterable[bytes] = (BODY,), *, number: int = 7, seed: str = "session", at_ms: int = 5) -> Sent:
    header = SESSION.header(number, Repeatable(seed))
    return write(SESSION.exchange(header, route=ROUTE), body, at_ms=at_ms)


def read_in_session(message: bytes, *, secret: SessionSecret = SESSION, route: str = ROUTE) -> Read:
    header = message[:SESSION_HEADER_BYTES]
    session_header_fields(header)
    return read_frames(secret.exchange(header, route=route), message[SESSION_HEADER_BYTES:])


def answer_to(
    read: Read, body: Iterable[bytes] = (BODY,), *, status: int = 200, seed: str = "answer", padded: bool = True
) -> bytes:
    writer = AnswerWriter(read.exchange, Repeatable(seed))
    head = ResponseHead(status=status, headers=(("content-type", "text/plain"),))
    end = Trailer(request_digest=read.digest, receipt="a.b.c")
    return b"".join((writer.start(head), *writer.body(body, padded=padded), writer.end(end)))


def read_answer(sent: Sent, chunks: Iterable[bytes], *, max_body_bytes: int = 1 << 24) -> Answer:
    reader = AnswerReader(sent.exchange, max_body_bytes=max_body_bytes)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish(sent.digest)


def refuses(message: bytes) -> bool:
    try:
        SERVER.read(message)
    except REFUSED:
        return True
    return False


def refuses_in_session(message: bytes) -> bool:
    try:
        read_in_session(message)
    except REFUSED:
        return True
    return False


def refuses_answer(sent: Sent, message: bytes) -> bool:
    try:
        read_answer(sent, [message])
    except REFUSED:
        return True
    return False


# Round trips


def test_one_shot_round_trip() -> None:
    read = SERVER.read(SENT.message)
    assert (read.head, read.body, read.digest) == (request_head(), BODY, SENT.digest)
    answer = read_answer(SENT, [answer_to(read)])
    assert answer.body == BODY
    assert answer.head == ResponseHead(status=200, headers=(("content-type", "text/plain"),))
    assert answer.trailer == Trailer(request_digest=SENT.digest, receipt="a.b.c")


def test_session_round_trip() -> None:
    sent = seal_in_session()
    read = read_in_session(sent.message)
    assert (read.head.at_ms, read.body, read.digest) == (5, BODY, sent.digest)
    assert read_answer(sent, [answer_to(read)]).body == BODY


@given(st.lists(st.integers(0, 1 << 20), max_size=10), st.binary(max_size=4000), st.booleans(), st.booleans())
def test_both_directions_read_alike_however_the_stream_is_cut(
    at: list[int],
    body: bytes,
    padded: bool,  # noqa: FBT001  # hypothesis names its arguments
    one_shot: bool,  # noqa: FBT001  # likewise
) -> None:
    if one_shot:
        sent = write(SENT.exchange, [body], padded=padded)
    else:
        sent = write(SESSION.exchange(SESSION.header(3, Repeatable("cut")), route=ROUTE), [body], padded=padded)
    reader = RequestReader(sent.exchange)
    found = b"".join(data for chunk in pieces(sent.frames, at) for data in reader.feed(chunk))
    assert (found, reader.end(), reader.finished) == (body, sent.digest, True)
    assert reader.head == request_head(padded=padded)
    answer = answer_to(Read(sent.exchange, reader.head, found, sent.digest), [body], padded=padded)
    whole, cut = read_answer(sent, [answer]), read_answer(sent, pieces(answer, at))
    assert whole == cut
    assert whole.body == body


@pytest.mark.parametrize("size", [0, 1, MAX_DATA_BYTES - 1, MAX_DATA_BYTES, MAX_DATA_BYTES + 1, 3 << 20])
@pytest.mark.parametrize("padded", [True, False])
def test_large_and_empty_bodies_round_trip(size: int, *, padded: bool) -> None:
    body = Repeatable("large")(size)
    sent = SERVER.seal((body,), padded=padded)
    read = SERVER.read(sent.message)
    assert read.body == body
    assert read_answer(sent, [answer_to(read, (body,), padded=padded)]).body == body


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes) -> None:
    assert refuses(data)
    assert refuses(SENT.exchange.header + data)
    assert refuses_in_session(data)
    assert refuses_in_session(seal_in_session().exchange.header + data)
    assert refuses_answer(SENT, data)
    assert refuses_answer(SENT, SENT.exchange.answer_prefix + bytes(32) + data)


# Every byte


def test_every_flipped_byte_of_a_sealed_request_is_refused(tell: Callable[[str], None]) -> None:
    refused = [refuses(message) for message in flips(SENT.message)]
    assert all(refused)
    tell(f"sealed request: {len(SENT.message)} bytes, {len(refused)} flips refused")


def test_every_flipped_byte_of_a_request_in_a_session_is_refused(tell: Callable[[str], None]) -> None:
    message = seal_in_session().message
    refused = [refuses_in_session(changed) for changed in flips(message)]
    assert all(refused)
    tell(f"request in a session: {len(message)} bytes, {len(refused)} flips refused")


def test_every_flipped_byte_of_an_answer_is_refused(tell: Callable[[str], None]) -> None:
    for name, sent, read in (
        ("one-shot answer", SENT, SERVER.read(SENT.message)),
        ("answer in a session", seal_in_session(), read_in_session(seal_in_session().message)),
    ):
        message = answer_to(read)
        refused = [refuses_answer(sent, changed) for changed in flips(message)]
        assert all(refused)
        tell(f"{name}: {len(message)} bytes, {len(refused)} flips refused")


# Frames that were moved


MANY = (BODY, bytes(3 * MAX_DATA_BYTES))


@pytest.mark.parametrize("in_session", [False, True])
def test_moved_frames_of_a_request_are_refused(*, in_session: bool) -> None:
    sent, foreign = (
        (seal_in_session(MANY), seal_in_session(MANY, seed="other"))
        if in_session
        else (SERVER.seal(MANY), SERVER.seal(MANY, seed="other"))
    )
    judge = refuses_in_session if in_session else refuses
    frames = split_frames(sent.frames)
    assert len(frames) == 5
    assert not judge(sent.message)
    for moved in rearranged(frames, split_frames(foreign.frames)):
        assert judge(sent.exchange.header + b"".join(moved))


@pytest.mark.parametrize("in_session", [False, True])
def test_moved_frames_of_an_answer_are_refused(*, in_session: bool) -> None:
    sent = seal_in_session() if in_session else SENT
    read = read_in_session(sent.message) if in_session else SERVER.read(sent.message)
    answer, foreign = answer_to(read, MANY), answer_to(read, MANY, seed="other answer")
    frames = split_frames(answer[ANSWER_HEADER_BYTES:])
    assert not refuses_answer(sent, answer)
    for moved in rearranged(frames, split_frames(foreign[ANSWER_HEADER_BYTES:])):
        assert refuses_answer(sent, answer[:ANSWER_HEADER_BYTES] + b"".join(moved))


def rearranged(frames: list[bytes], foreign: list[bytes]) -> Iterable[list[bytes]]:
    """Dropped, doubled, spliced, swapped and cut off, at every place."""
    for at in range(len(frames)):
        before, after = frames[:at], frames[at + 1 :]
        yield [*before, *after]
        yield [*before, frames[at], frames[at], *after]
        yield [*before, foreign[at], *after]
        yield [*before, foreign[at], frames[at], *after]
        yield [*before, frames[at][:-1]]
        yield before
        if after:
            yield [*before, after[0], frames[at], *after[1:]]
            yield [*frames[: at + 1], *foreign[at + 1 :]]
            yield [*foreign[: at + 1], *after]
    yield [*frames, frames[-1]]
    yield [*frames, b"\0"]


@pytest.mark.parametrize("in_session", [False, True])
def test_a_truncated_request_is_told_from_a_changed_one(*, in_session: bool) -> None:
    sent = seal_in_session() if in_session else SENT
    for length in range(0, len(sent.frames), 7):
        with pytest.raises(TruncatedMessageError):
            read_frames(sent.exchange, sent.frames[:length])


def test_a_truncated_answer_is_told_from_a_changed_one() -> None:
    answer = answer_to(SERVER.read(SENT.message))
    for length in range(len(answer)):
        with pytest.raises(TruncatedMessageError):
            read_answer(SENT, [answer[:length]])


# What the path may not change


@pytest.mark.parametrize("route", ["", "other", ROUTE + "a", ROUTE[:-1], ROUTE.lower()])
def test_another_route_is_refused(route: str) -> None:
    with pytest.raises(SealedMessageError):
        SERVER.read(SENT.message, route=route)
    with pytest.raises(SealedMessageError):
        read_in_session(seal_in_session().message, route=route)


@pytest.mark.parametrize(("start", "end", "what"), [(4, 20, "sid"), (20, 28, "q"), (28, 44, "rnd")])
def test_another_sid_q_or_rnd_in_the_header_is_refused(start: int, end: int, what: str) -> None:
    message = seal_in_session().message
    other = Repeatable(what)(end - start)
    with pytest.raises(SealedMessageError):
        read_in_session(message[:start] + other + message[end:])


def test_a_request_of_another_session_is_refused() -> None:
    other = SessionSecret(prk=bytes(32), session_id=SESSION.session_id)
    with pytest.raises(SealedMessageError):
        read_in_session(seal_in_session().message, secret=other)


def test_an_answer_to_another_request_is_refused() -> None:
    other = SERVER.seal((BODY,), seed="another request")
    assert refuses_answer(SENT, answer_to(SERVER.read(other.message)))
    seventh, eighth = seal_in_session(number=7), seal_in_session(number=8)
    assert refuses_answer(seventh, answer_to(read_in_session(eighth.message)))
    retried = seal_in_session(number=7, seed="same number, other rnd")
    assert refuses_answer(seventh, answer_to(read_in_session(retried.message)))
    assert refuses_answer(SENT, answer_to(read_in_session(seventh.message)))


# What a peer that holds the keys may not send


def hostile_request(frames: list[tuple[int, bytes]]) -> list[bytes]:
    keys = SENT.exchange.request_keys
    sealed = [(0, head_plaintext(request_head().encode())), *frames]
    reader = RequestReader(SENT.exchange)
    data = reader.feed(b"".join(hostile_frame(keys, index, *frame) for index, frame in enumerate(sealed)))
    reader.end()
    return [bytes(one) for one in data]


def test_a_request_made_by_hand_from_the_specification_is_read() -> None:
    assert hostile_request([(0, plaintext(b"one")), (0, plaintext(b"two", 100)), (1, plaintext(b"", 918))]) == [
        b"one",
        b"two",
    ]


@pytest.mark.parametrize(
    "frames",
    [
        [(1, plaintext(b"one") + b"\1")],
        [(0, plaintext(b"one", 1)), (1, plaintext(b"two"))],
        [(0, plaintext(b"one")), (0, plaintext(b"", 5)), (1, plaintext(b"two"))],
        [(0, plaintext(b"")), (1, plaintext(b"two"))],
        [(0, plaintext(b"one")), (0, plaintext(b"")), (1, plaintext(b"two"))],
        [(1, plaintext(b"one", 1022))],
        [(1, plaintext(b"", 1025))],
        [(0, plaintext(b"one", 1021)), (1, plaintext(b"", 1))],
        [(0, plaintext(b"one", 600)), (1, plaintext(b"", 600))],
        [(2, plaintext(b"one")), (1, plaintext(b""))],
        [(1, plaintext(b"one")), (1, plaintext(b""))],
    ],
    ids=[
        "padding not zero",
        "data after padding",
        "data after a padding frame",
        "empty frame first",
        "empty frame between",
        "too much padding",
        "too much padding of an empty body",
        "too much padding in its own frame",
        "too much padding in all",
        "unknown type",
        "two last frames",
    ],
)
def test_frames_against_the_rules_are_refused_in_a_request(frames: list[tuple[int, bytes]]) -> None:
    with pytest.raises(SealedMessageError):
        hostile_request(frames)


def hostile_answer(
    frames: list[tuple[int, bytes]], *, head: bytes | None = None, header: bytes | None = None
) -> Answer:
    header = header or SENT.exchange.answer_prefix + bytes(32)
    keys = SENT.exchange.answer_keys(header)
    sealed = [(0, head_plaintext(head or ResponseHead(status=200).encode())), *frames]
    stream = b"".join(hostile_frame(keys, index, *frame) for index, frame in enumerate(sealed))
    return read_answer(SENT, [header + stream])


END = plaintext(Trailer(request_digest=SENT.digest).encode())


def test_an_answer_made_by_hand_from_the_specification_is_read() -> None:
    assert hostile_answer([(0, plaintext(b"one")), (0, plaintext(b"two", 1018)), (1, END)]).body == b"onetwo"
    assert hostile_answer([(1, END)]).body == b""


@pytest.mark.parametrize(
    "frames",
    [
        [(1, END + b"\1")],
        [(1, END + bytes(1024))],
        [(0, plaintext(b"one", 1)), (0, plaintext(b"two")), (1, END)],
        [(0, plaintext(b"")), (0, plaintext(b"two")), (1, END)],
        [(0, plaintext(b"one", 1022)), (1, END)],
        [(0, END)],
        [(1, END), (1, END)],
        [(1, plaintext(b""))],
        [(1, plaintext(Trailer(request_digest=SENT.digest).encode() + b"\0"))],
    ],
    ids=[
        "padding not zero",
        "trailer padded too far",
        "data after padding",
        "empty frame first",
        "too much padding",
        "no last frame",
        "two last frames",
        "no trailer",
        "bytes after the trailer",
    ],
)
def test_frames_against_the_rules_are_refused_in_an_answer(frames: list[tuple[int, bytes]]) -> None:
    with pytest.raises(REFUSED):
        hostile_answer(frames)


@pytest.mark.parametrize("digest", [None, bytes(32), SENT.digest[::-1]], ids=["none", "zeros", "another"])
def test_a_good_answer_must_be_to_the_whole_request_that_was_sent(digest: bytes | None) -> None:
    end = plaintext(Trailer(request_digest=digest).encode())
    for status in (200, 399):
        with pytest.raises(SealedMessageError, match="not the one that was sent"):
            hostile_answer([(1, end)], head=ResponseHead(status=status).encode())
    error = hostile_answer([(1, end)], head=ResponseHead(status=400).encode())
    assert error.trailer.request_digest == digest


def test_an_error_in_the_trailer_reaches_the_client() -> None:
    error = WireError(code="internal", message="failed on the way")
    end = plaintext(Trailer(request_digest=SENT.digest, error=error).encode())
    assert hostile_answer([(0, plaintext(b"half")), (1, end)]).trailer.error == error


@pytest.mark.parametrize("magic", [b"BST1", b"BSQ1", b"BSR2", b"\0\0\0\0"])
def test_an_answer_with_another_magic_or_key_id_is_refused(magic: bytes) -> None:
    answer = answer_to(SERVER.read(SENT.message))
    with pytest.raises(SealedMessageError, match="not one to this request"):
        read_answer(SENT, [magic + answer[4:]])
    with pytest.raises(SealedMessageError, match="not one to this request"):
        read_answer(SENT, [answer[:4] + bytes(8) + answer[12:]])


def test_an_answer_larger_than_accepted_is_refused() -> None:
    answer = answer_to(SERVER.read(SENT.message))
    assert read_answer(SENT, [answer], max_body_bytes=len(BODY)).body == BODY
    with pytest.raises(SealedMessageError, match="larger than"):
        read_answer(SENT, [answer], max_body_bytes=len(BODY) - 1)


# What the path sees


@pytest.mark.parametrize("in_session", [False, True])
def test_padded_requests_of_similar_size_have_the_same_length(*, in_session: bool) -> None:
    def length(size: int) -> int:
        sent = seal_in_session((bytes(size),)) if in_session else SERVER.seal((bytes(size),))
        return len(sent.message)

    assert length(1) == length(1024) < length(1025) == length(2048)


def test_answers_of_similar_size_have_the_same_length_with_or_without_a_receipt() -> None:
    def length(size: int, receipt: str) -> int:
        writer = AnswerWriter(SENT.exchange, Repeatable("size"))
        end = Trailer(request_digest=SENT.digest, receipt=receipt)
        body = writer.body((bytes(size),), padded=True)
        return len(b"".join((writer.start(ResponseHead(status=200)), *body, writer.end(end))))

    assert length(1, "") == length(1024, "x" * 900) < length(1025, "")


def test_the_same_request_twice_looks_different_and_shows_no_plaintext() -> None:
    secret = b"something to keep to oneself"
    one, other = (SERVER.seal((secret,), seed=seed, headers=()).message for seed in ("one", "other"))
    assert one[16:] != other[16:]
    assert secret not in one
    assert b"/v2/models" not in one


def test_a_request_streams_one_frame_at_a_time() -> None:
    taken = 0

    def body() -> Iterable[bytes]:
        nonlocal taken
        for _ in range(8):
            taken += 1
            yield bytes(MAX_DATA_BYTES)

    frames = RequestWriter(SENT.exchange).write(request_head(), body())
    next(frames)
    assert taken == 0
    next(frames)
    assert taken <= 4  # what is sealed, what may turn out to be the last, and what is being filled


def test_keys_differ_between_requests_and_directions() -> None:
    exchanges = [SENT.exchange, *(seal_in_session(number=number).exchange for number in range(3))]
    keys = {exchange.request_keys for exchange in exchanges}
    keys |= {exchange.answer_keys(exchange.answer_prefix + bytes(32)) for exchange in exchanges}
    assert len(keys) == 8
