"""Every check of the suite against our own server; and the suite against servers that conform to nothing."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conformance.run import ELSEWHERE, PROXY_IS_DIFFERENT, TABLE, counts, outcome
from conformance.server_under_test import ServerUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.network

_ROOT = Path(__file__).parents[2]
# How many ids each section of the design's list has.
_LISTED = {"H": 11, "M": 21, "I": 60, "Q": 11, "B": 41, "C": 4, "R": 23, "X": 9, "Z": 15}


@pytest.mark.parametrize("identifier", TABLE)
def test_conforms(identifier: str, server: ServerUnderTest) -> None:
    TABLE[identifier].run(server)


@pytest.mark.parametrize("identifier", [identifier for identifier in TABLE if identifier not in PROXY_IS_DIFFERENT])
def test_conforms_through_the_proxy(identifier: str, through_proxy: ServerUnderTest) -> None:
    TABLE[identifier].run(through_proxy)


def test_what_the_proxy_is_excused_from_it_really_does_otherwise(
    through_proxy: ServerUnderTest, tell: Callable[[str], None]
) -> None:
    for identifier in PROXY_IS_DIFFERENT:
        assert outcome(TABLE[identifier], through_proxy), identifier
    tell(f"{len(TABLE) - len(PROXY_IS_DIFFERENT)} of {len(TABLE)} checks run through the proxy")


def test_every_listed_id_has_a_check_or_a_place_elsewhere(tell: Callable[[str], None]) -> None:
    listed = {f"{letter}{number}" for letter, last in _LISTED.items() for number in range(1, last + 1)}
    assert listed - TABLE.keys() - ELSEWHERE.keys() == set()
    assert not TABLE.keys() & ELSEWHERE.keys()
    tell(counts({}).replace("checks pass", "checks"))


@pytest.mark.parametrize("identifier", ELSEWHERE)
def test_what_is_shown_elsewhere_is_there(identifier: str) -> None:
    path, _, name = ELSEWHERE[identifier].partition("::")
    assert path.startswith("left out: ") or f"def {name}(" in (_ROOT / path).read_text("utf-8")


@contextmanager
def parrot(status: int, body: bytes) -> Iterator[str]:
    """A server that always says the same."""

    class Always(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_HEAD = do_TRACE = do_PUT = do_DELETE = _answer  # noqa: N815  # http.server's names

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Always) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_address[1]}"
        finally:
            listener.shutdown()
            thread.join()


def test_no_check_passes_whatever_the_server_says() -> None:
    with parrot(200, b"{}") as yes, parrot(404, b'{"error":"no"}') as no:
        servers = ServerUnderTest(yes), ServerUnderTest(no)
        gullible = [check.id for check in TABLE.values() if not any(outcome(check, server) for server in servers)]
    assert gullible == []
