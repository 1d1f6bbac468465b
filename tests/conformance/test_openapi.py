"""The OpenAPI document: complete, and what it says is what the server does (schemathesis, all of its checks)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blindai.server.dispatch import ROUTES
from blindai.server.openapi import openapi_document
from blindai.server.openapi_operations import OPERATIONS
from blindai.server.server_metadata import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.server_under_test import ServerUnderTest

_CONFIG = Path(__file__).with_name("schemathesis.toml")
_EXAMPLES = 10


def test_every_route_is_described_and_nothing_else() -> None:
    routed = {(route.method, route.path) for route in ROUTES if route.path not in LEFT_OUT}
    assert OPERATIONS.keys() == routed


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    document = openapi_document()
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    used = {name for name in schemas if f'"#/components/schemas/{name}"' in text}
    assert used == schemas.keys()
    assert text.count("#/components/schemas/") == sum(text.count(f'"#/components/schemas/{name}"') for name in schemas)


def test_operation_ids_are_unique() -> None:
    operations = [entry for item in openapi_document()["paths"].values() for entry in item.values()]
    identifiers = [entry["operationId"] for entry in operations if isinstance(entry, dict)]
    assert len(set(identifiers)) == len(identifiers) == len(OPERATIONS)


@pytest.mark.network
def test_document_is_served_under_both_paths(server: ServerUnderTest) -> None:
    served = server.ask("GET", "/v2/openapi.json").json
    assert served == server.ask("GET", "/openapi.json").json == json.loads(json.dumps(openapi_document()))


@pytest.mark.network
def test_schemathesis_finds_nothing(server_url: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG),
        "run", f"{server_url}/v2/openapi.json", "--tls-verify", "false", "--checks", "all",
        "--max-examples", str(_EXAMPLES), "--seed", "7", "--continue-on-failure",
    ]  # fmt: skip
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-20_000:]
    tell(next(line.strip() for line in found.stdout.splitlines() if "generated" in line and "passed" in line))
