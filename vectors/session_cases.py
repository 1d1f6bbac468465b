"""The cases of the topic `session`: its keys, requests and answers inside it, and the window of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from message_parts import (
    ERROR,
    NONCE,
    OPENER,
    RESPONSE_HEAD,
    SESSION,
    SESSION_HEADER,
    make_case,
    one_shot_header,
    request_head,
)
from vector_format import Case, compact, fixed
from vector_operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IN_SESSION = ("outer", "session-request")


def session_cases(wrapped: Mapping[str, bytes]) -> Iterator[Case]:
    """Requests after one encapsulation."""
    header = one_shot_header(wrapped["opening"])
    opening = {**OPENER, "header": header, "answer_header": b"BSR1" + header[4:12] + NONCE}
    covers: tuple[str, ...] = ("outer", "request", "session-id", "session-salt", "transcript")
    yield make_case("session", "secret", "PRK and sid from the opening exchange", "session_secret", *covers, **opening)
    covers = (*IN_SESSION, "session-response", "transcript")
    for slug, number in (("keys-first", 0), ("keys-later", 2**32 - 1)):
        inputs = {**SESSION, "number": number, "rnd": fixed("rnd", 16), "nonce": NONCE}
        yield make_case("session", slug, f"headers and keys of q = {number}", "session_keys", *covers, **inputs)
    yield from _session_message_cases()
    yield make_case("session", "header", "sid and q", "session_header", header=SESSION_HEADER)
    for slug, title, changed in (
        ("header-short", "a byte is missing", SESSION_HEADER[:-1]),
        ("header-long", "a byte too many", SESSION_HEADER + b"\0"),
        ("header-magic", "BSQ1", b"BSQ1" + SESSION_HEADER[4:]),
    ):
        yield make_case("session", slug, title, "session_header", header=changed, failure="sealed_message")
    yield from _window_cases()


def _session_message_cases() -> Iterator[Case]:
    head = request_head(at_ms=2500, headers={})
    covers = (*IN_SESSION, "frame", "request-full")
    request = {**SESSION, "header": SESSION_HEADER, "head": head, "body": b"in a session"}
    yield make_case("session", "request", "a whole request", "seal_request", *covers, **request)
    sent = OPERATIONS["seal_request"](request)
    message = sent["message"]
    yield make_case("session", "read-request", "and read", "read_request", *covers, **SESSION, message=message)
    spoiled = bytearray(message)
    spoiled[43] ^= 1
    other_number = message[:20] + (8).to_bytes(8, "big") + message[28:]
    for slug, title, change in (
        ("other-route", "the outer route was changed", {"route": ""}),
        ("other-rnd", "a bit of rnd", {"message": bytes(spoiled)}),
        ("other-number", "q = 8 in front of the frames of 7", {"message": other_number}),
        ("other-prk", "another session's PRK", {"prk": fixed("root", 32)}),
    ):
        inputs = {**SESSION, "message": message, **change, "failure": "sealed_message"}
        yield make_case("session", slug, title, "read_request", **inputs)
    yield from _session_answer_cases(sent["request_digest"])


def _session_answer_cases(digest: bytes) -> Iterator[Case]:
    covers = ("session-response", "transcript", "frame")
    exchange = {**SESSION, "header": SESSION_HEADER}
    answer = {**exchange, "nonce": NONCE, "head": RESPONSE_HEAD, "body": b"an output", "padded": True}
    answer = {**answer, "receipt": "a.b.c", "request_digest": digest}
    yield make_case("session", "answer", "a whole answer, padded", "seal_answer", *covers, **answer)
    message = OPERATIONS["seal_answer"](answer)["message"]
    reads = {**exchange, "request_digest": digest, "max_body_bytes": 4096, "message": message}
    yield make_case("session", "read-answer", "and read", "read_answer", *covers, **reads)
    unread = {name: value for name, value in answer.items() if name not in {"request_digest", "receipt"}}
    refused = {**unread, "head": compact({"status": 400, "headers": {}}), "body": b"", "padded": False, "error": ERROR}
    early = OPERATIONS["seal_answer"](refused)["message"]
    title = "a request not read to its end: no body, zeros for F, an error"
    yield make_case("session", "answer-refused", title, "seal_answer", *covers, **refused)
    incomplete = "complete = 0 is accepted with status 400"
    yield make_case("session", "read-refused", incomplete, "read_answer", *covers, **{**reads, "message": early})
    lies = OPERATIONS["seal_answer"]({**unread, "body": b"", "padded": False})["message"]
    next_number = message[:4] + (8).to_bytes(8, "big") + message[12:]
    for slug, about, change, failure in (
        ("answer-other-digest", "F is not that of what was sent", {"request_digest": bytes(32)}, "sealed_message"),
        ("answer-incomplete", "complete = 0 with status 200", {"message": lies}, "sealed_message"),
        ("answer-other-number", "an answer to q = 8", {"message": next_number}, "sealed_message"),
        (
            "answer-to-another",
            "to a request with another rnd",
            {"header": SESSION_HEADER[:-1] + b"\0"},
            "sealed_message",
        ),
        ("answer-too-large", "a body larger than accepted", {"max_body_bytes": 8}, "sealed_message"),
        ("answer-cut", "the last byte is missing", {"message": message[:-1]}, "truncated_message"),
        ("answer-no-header", "43 bytes", {"message": message[:43]}, "truncated_message"),
    ):
        yield make_case("session", slug, about, "read_answer", **{**reads, **change, "failure": failure})


def _window_cases() -> Iterator[Case]:
    for slug, title, numbers in (
        ("window-order", "order is free", [3, 0, 2, 1]),
        ("window-ahead", "q = hi + 1024", [0, 1024]),
        ("window-first", "hi starts at −1, so 1023 may come first", [1023, 0]),
        ("window-behind", "q = hi − 1023", [1023, 1024, 1]),
    ):
        yield make_case("session", slug, title, "replay_window", numbers=numbers)
    far = [1024 * step - 1 for step in range(1, 4)]
    for slug, title, numbers in (
        ("window-twice", "a number twice", [5, 5]),
        ("window-twice-behind", "twice, behind the highest", [5, 9, 5]),
        ("window-too-far", "q = hi + 1025", [0, 1025]),
        ("window-first-too-far", "hi starts at −1, so 1024 is too far", [1024]),
        ("window-too-old", "q = hi − 1024", [1023, 1024, 0]),
        ("window-forgotten", "out of the window after steps", [*far, 2000]),
        ("window-2-32", "q = 2^32", [2**32]),
    ):
        yield make_case("session", slug, title, "replay_window", numbers=numbers, failure="replayed_message")
