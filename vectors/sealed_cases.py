"""The cases of the topic `sealed`: keys, whole one-shot requests and answers, and (part_cases.py) their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from message_parts import NONCE, OPENER, RESPONSE_HEAD, ROUTE, make_case, one_shot_header, request_head
from part_cases import part_cases
from vector_format import Case, fixed
from vector_operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ONE_SHOT = ("outer", "request", "request-key", "request-salt")
ANSWER = ("response-key", "response-salt", "transcript")


def sealed_cases(wrapped: Mapping[str, bytes]) -> Iterator[Case]:
    """One-shot requests and answers."""
    yield from _header_cases(wrapped)
    yield from _message_cases(one_shot_header(wrapped["opening"]))
    yield from part_cases()


def _header_cases(wrapped: Mapping[str, bytes]) -> Iterator[Case]:
    covers = ("kid", *ONE_SHOT, "transcript", "replay")
    header = one_shot_header(wrapped["opening"])
    no_route = {**OPENER, "route": "", "header": one_shot_header(wrapped["no-route"])}
    yield make_case("sealed", "keys", "all values from a header", "one_shot_keys", *covers, **OPENER, header=header)
    yield make_case("sealed", "keys-no-route", "LP of an empty route", "one_shot_keys", *covers, **no_route)
    flipped = bytearray(header)
    for slug, title, change in (
        ("other-route", "the outer route was changed", {"route": ROUTE[:-1]}),
        ("other-keyset", "another keyset with the same key", {"keyset_id": fixed("root", 32)}),
        ("other-key", "another X25519 key", {"x25519_seed": fixed("root", 32)}),
        ("other-mlkem-key", "another ML-KEM key", {"mlkem_seed": fixed("root", 64)}),
        ("other-kid", "the header names another key", {"header": header[:4] + bytes(8) + header[12:]}),
        ("other-kem", "KEM 0x0020", {"header": header[:12] + b"\0\x20" + header[14:]}),
        ("other-length", "len is not 1168", {"header": header[:14] + (1167).to_bytes(2, "big") + header[16:-1]}),
        ("short-header", "a byte is missing", {"header": header[:-1]}),
        ("other-magic", "BSQ2", {"header": b"BSQ2" + header[4:]}),
    ):
        inputs = {**OPENER, "header": header, **change, "failure": "sealed_message"}
        yield make_case("sealed", slug, title, "one_shot_keys", **inputs)
    for place, at in (("mlkem", 16), ("x25519", 16 + 1088), ("sealed", -1)):
        flipped = bytearray(header)
        flipped[at] ^= 1
        inputs = {**OPENER, "header": bytes(flipped), "failure": "sealed_message"}
        yield make_case("sealed", f"flip-{place}", f"a bit of the {place} part of wrapped", "one_shot_keys", **inputs)


def _message_cases(header: bytes) -> Iterator[Case]:
    opener = {**OPENER, "header": header}
    covers: tuple[str, ...] = (*ONE_SHOT, "frame", "request-full")
    padded = {**opener, "head": request_head(padding="padme"), "body": b"padded to 1 KiB"}
    plain_request = {**opener, "head": request_head(session=True), "body": b"as it is"}
    yield make_case("sealed", "request", "a whole request, unpadded", "seal_request", *covers, **plain_request)
    yield make_case("sealed", "request-padded", "a whole request, padded", "seal_request", *covers, **padded)
    sent = OPERATIONS["seal_request"](plain_request)
    read = {**OPENER, "message": sent["message"]}
    yield make_case("sealed", "read-request", "and read", "read_request", *covers, **read)
    for slug, title, message, failure in (
        ("request-cut", "its last byte is missing", sent["message"][:-1], "truncated_message"),
        ("request-no-last", "its last frame is missing", sent["message"][: len(header) + 1045], "truncated_message"),
        ("request-surplus", "a byte follows", sent["message"] + b"\0", "sealed_message"),
    ):
        yield make_case("sealed", slug, title, "read_request", **{**OPENER, "message": message, "failure": failure})
    answer_header = b"BSR1" + header[4:12] + NONCE
    covers = (*(label for label in ONE_SHOT if label in {"outer", "request"}), *ANSWER)
    keys = {**opener, "answer_header": answer_header}
    yield make_case("sealed", "answer-keys", "the answer's keys", "answer_keys", *covers, **keys)
    for slug, title, changed in (
        ("answer-other-kid", "an answer that names another key", b"BSR1" + bytes(8) + NONCE),
        ("answer-other-magic", "an answer of a session", b"BST1" + answer_header[4:]),
        ("answer-short-nonce", "31 bytes of nonce", answer_header[:-1]),
    ):
        inputs = {**opener, "answer_header": changed, "failure": "sealed_message"}
        yield make_case("sealed", slug, title, "answer_keys", **inputs)
    answer = {"nonce": NONCE, "head": RESPONSE_HEAD, "body": b"an output", "padded": False, "receipt": "a.b.c"}
    answer = {**opener, **answer, "request_digest": sent["request_digest"]}
    yield make_case("sealed", "answer", "a whole answer", "seal_answer", *covers, "frame", **answer)
    message = OPERATIONS["seal_answer"](answer)["message"]
    read = {**opener, "request_digest": sent["request_digest"], "max_body_bytes": 4096, "message": message}
    yield make_case("sealed", "read-answer", "and read", "read_answer", *covers, "frame", **read)
