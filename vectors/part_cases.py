"""The parts of sealed messages by themselves: frames under keys that the case shows, heads and trailers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from message_parts import ERROR, KEYS, RESPONSE_HEAD, frame, make_case, plain, request_head
from vector_format import Case, base64url, compact, fixed

if TYPE_CHECKING:
    from collections.abc import Iterator


def part_cases() -> Iterator[Case]:
    """Frames, heads and trailers."""
    yield from _frame_cases()
    yield from _head_cases()
    yield from _trailer_cases()


def _frame_cases() -> Iterator[Case]:
    def case(slug: str, title: str, stream: bytes, failure: str | None = "sealed_message") -> Case:
        covers = () if failure else ("frame",)
        return make_case(
            "sealed", f"frames-{slug}", title, "read_frames", *covers, keys=KEYS, stream=stream, failure=failure
        )

    head = frame(0, 0, plain(b"{}", 1018))
    body, last = frame(1, 0, plain(b"abc")), frame(2, 1, plain(b"d", 3))
    yield case("three", "head, body, last with zeros", head + body + last, None)
    yield case("no-data", "the last frame may be empty", head + frame(1, 1, plain(b"")), None)
    yield case("wide-head", "a head padded to 2048", frame(0, 0, plain(b"{}", 2042)) + frame(1, 1, plain(b"")), None)
    yield case("non-zero-padding", "a byte of the padding is 1", head + frame(1, 1, plain(b"abc\1", 3, size=3)))
    yield case("unknown-type", "type 2", head + frame(1, 2, plain(b"abc")))
    yield case("type-changed", "type 0 changed into 1", head + body[:4] + b"\1" + body[5:])
    yield case("claims-too-much", "n is 4, the frame holds 3", head + frame(1, 1, plain(b"abc", size=4)))
    yield case("too-short", "len 20 cannot hold n", head + (20).to_bytes(4, "big") + bytes(20))
    yield case("too-long", "len passes 1 MiB and what GCM adds", head + (2**20 + 18).to_bytes(4, "big"))
    yield case("length-max", "len 2^32 − 1 is refused before its bytes arrive", head + b"\xff" * 4)
    yield case(
        "swapped", "frames 1 and 2 in the other order", head + frame(2, 0, plain(b"d")) + frame(1, 1, plain(b"c"))
    )
    yield case("doubled", "frame 1 twice", head + body + body + last)
    yield case("dropped", "frame 1 is missing", head + last)
    yield case("surplus", "a frame follows the last", head + body + last + frame(3, 1, plain(b"")))
    yield case("surplus-byte", "a byte follows the last", head + body + last + b"\0")
    yield case("flipped", "a bit of the tag", head + body + last[:-1] + bytes([last[-1] ^ 1]))
    yield case("other-keys", "sealed under other keys", frame(0, 0, plain(b"{}", 1018), keys=KEYS[::-1]) + body + last)
    yield case("head-is-last", "frame 0 has type 1", frame(0, 1, plain(b"{}", 1018)))
    yield case("head-unpadded", "frame 0 is not a multiple of 1024", frame(0, 0, plain(b"{}", 1017)) + body + last)
    after = frame(1, 0, plain(b"abc", 1)) + frame(2, 1, plain(b"d"))
    yield case("data-after-padding", "data follows zeros", head + after)
    yield case("too-much-padding", "1025 bytes for a body of 3", head + frame(1, 1, plain(b"abc", 1022)))
    yield case("cut-frame", "ends inside a frame", head + body[:-1], "truncated_message")
    yield case("cut-length", "ends inside a length", head + body[:3], "truncated_message")
    yield case("no-last", "ends after a frame of type 0", head + body, "truncated_message")
    yield case("nothing", "no byte at all", b"", "truncated_message")


def _head_cases() -> Iterator[Case]:
    def case(slug: str, title: str, head: bytes, failure: str | None = "sealed_message") -> Case:
        operation = "response_head" if slug.startswith("answer") else "request_head"
        return make_case("sealed", f"head-{slug}", title, operation, head=head, failure=failure)

    good = request_head()
    yield case("request", "a request's head", good, None)
    yield case("in-session", "with `at_ms`", request_head(at_ms=1500), None)
    yield case("unknown-member", "a member more", request_head(route="x"))
    yield case("missing-member", "no salt", request_head(salt=None))
    yield case("duplicate-name", "`path` twice", b'{"path":"/v2",' + good[1:])
    yield case("duplicate-header", "a header twice", good.replace(b'{"auth', b'{"authorization":"","auth'))
    yield case("byte-order-mark", "begins with EF BB BF", b"\xef\xbb\xbf" + good)
    yield case("trailing-bytes", "a brace too many", good + b"}")
    yield case("float", "at_ms 1.5", request_head(at_ms=1.5))
    yield case("too-deep", "nine levels", good.replace(b'"session":false', b'"session":' + b"[" * 8 + b"]" * 8))
    yield case("short-salt", "31 bytes", request_head(salt=base64url(bytes(31))))
    yield case("padded-base64url", "base64url with `=`", request_head(id=base64url(bytes(16)) + "=="))
    yield case("spare-bits", "base64url whose spare bits are not zero", request_head(id="A" * 21 + "B"))
    yield case("other-method", "CONNECT", request_head(method="CONNECT"))
    yield case("path-no-slash", "a path that begins with a letter", request_head(path="v2"))
    yield case("path-space", "a blank in the path", request_head(path="/v2 x"))
    yield case("header-upper-case", "a header's name in capitals", request_head(headers={"Accept": "x"}))
    yield case("header-newline", "a header with a line break", request_head(headers={"accept": "a\nb"}))
    yield case("number-for-true", "1 is not true", request_head(session=1))
    yield case("answer", "an answer's head", RESPONSE_HEAD, None)
    grant = {"status": 200, "headers": {}, "session": {"idle_s": 300, "lifetime_s": 900}}
    yield case("answer-session", "that opens a session", compact(grant), None)
    yield case("answer-status", "status 600", compact({"status": 600, "headers": {}}))
    yield case("answer-null-session", "null is no session", compact({**grant, "session": None}))


def _trailer_cases() -> Iterator[Case]:
    def case(slug: str, title: str, data: bytes, failure: str | None = "sealed_message") -> Case:
        return make_case("sealed", f"trailer-{slug}", title, "trailer", trailer=data, failure=failure)

    digest, empty = fixed("F", 32), bytes(4)
    receipt = len(b"a.b.c").to_bytes(4, "big") + b"a.b.c"
    error = len(ERROR).to_bytes(4, "big") + ERROR
    yield case("complete", "complete, with a receipt", b"\1" + digest + receipt + empty, None)
    yield case("incomplete", "not read to its end: zeros, and an error", b"\0" + bytes(32) + empty + error, None)
    yield case("surplus", "a byte follows", b"\1" + digest + receipt + empty + b"\0")
    yield case("complete-2", "complete is 2", b"\2" + digest + receipt + empty)
    yield case("incomplete-digest", "incomplete, and F is not zeros", b"\0" + digest + empty + error)
    yield case("cut", "no length of the error", b"\1" + digest + receipt)
    yield case("receipt-too-long", "the receipt's length passes the end", b"\1" + digest + b"\0\0\0\x09a.b.c" + empty)
    yield case("receipt-not-ascii", "a byte FF in the receipt", b"\1" + digest + b"\0\0\0\1\xff" + empty)
    yield case("error-not-json", "an error that is no object", b"\1" + digest + empty + b"\0\0\0\2[]")
    yield case("empty", "no byte at all", b"")
