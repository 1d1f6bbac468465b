"""All checks in one table, and which ids of the design's list stand elsewhere.

Leaves out: the command line (`__main__`) and pytest (`test_conformance`).
"""

from __future__ import annotations

import importlib
from collections import Counter
from typing import TYPE_CHECKING

from conformance.checks import TABLE, Check

if TYPE_CHECKING:
    from collections.abc import Collection

    from conformance.server_under_test import ServerUnderTest

__all__ = ["ELSEWHERE", "PROXY_IS_DIFFERENT", "TABLE", "counts", "outcome"]

SECTIONS = {
    "H": "health", "M": "models", "I": "inference", "Q": "parameters", "B": "binary", "C": "classification",
    "R": "repository", "X": "left out", "Z": "hardening",
}  # fmt: skip
_MODULES = (
    "health", "models", "inference", "elements", "parameters", "binary", "bytes", "classification", "repository",
    "other",
)  # fmt: skip
for _module in _MODULES:
    importlib.import_module(f"conformance.checks_{_module}")

# Ids of these sections that one request at a time from outside cannot show; each with where it is shown.
ELSEWHERE = {
    "M21": "warm-up: tests/server, of the worker pool",
    "Q8": "queue timeouts: tests/server",
    "Q9": "full queues: tests/server",
    "Q10": "deadlines: tests/server",
    "Q11": "clients that leave: tests/server",
    "B40": "Triton's own client: not installed here",
    "B41": "bodies beyond the limit: tests/server/test_limits.py",
    "R22": "the runtime policy without uploads: tests/server/test_repository_extension.py",
    "R23": "roles: tests/server/test_repository_extension.py",
    "X5": "text generation: not served yet",
    "X6": "text generation: not served yet",
    "X7": "metrics: their own listener, other names",
}

# Checks that the TLS door passes and the local proxy need not; each with why.
PROXY_IS_DIFFERENT = {
    "H8": "the root is the proxy's page for people, which says what was verified: tests/proxy/test_http_front.py",
}


def outcome(check: Check, server: ServerUnderTest) -> str:
    """Why a check failed; empty if it did not."""
    try:
        check.run(server)
    except Exception as error:  # noqa: BLE001  # any failure is an outcome of the suite
        return f"{type(error).__name__}: {error}"
    return ""


def counts(failures: Collection[str]) -> str:
    """How many passed in each section."""
    total = Counter(identifier[0] for identifier in TABLE)
    failed = Counter(identifier[0] for identifier in failures)
    parts = [f"{name} {total[letter] - failed[letter]}/{total[letter]}" for letter, name in SECTIONS.items()]
    return f"{len(TABLE) - len(failures)} of {len(TABLE)} checks pass: {', '.join(parts)}"
