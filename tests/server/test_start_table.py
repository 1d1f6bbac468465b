"""An operator reads at start what will be served, in full, and `--check-config` says the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from blindai.server.settings import DISABLE_TELEMETRY, Settings
from blindai.server.start_table import start_table


def cells(settings: Settings) -> dict[str, str]:
    rows = (line.split("  ", 1) for line in start_table(settings))
    return {name: words.strip() for name, words in rows}


def test_the_defaults_say_what_is_open_and_what_protects() -> None:
    rows = cells(Settings(simulation=True))
    assert rows["protection"].startswith("NONE")
    assert rows["authentication"].startswith("NONE")
    assert rows["sealed door"] == "open, 127.0.0.1 port 50051"
    assert (rows["pinned-TLS door"], rows["gRPC door"]) == ("open, same port", "open, 127.0.0.1 port 50052")
    assert rows["requests"] == "at most 256 MiB each, 2 GiB together"
    assert rows["telemetry"] == "off"


def test_what_is_closed_shared_or_sent_is_said() -> None:
    settings = Settings(
        simulation=True,
        port=0,
        require_sealed=True,
        isolation="thread",
        batching=False,
        authentication="required",
        access="access.toml",
        upload_allowed=False,
        max_body_bytes=1001,
        telemetry_endpoint="http://127.0.0.1:4318/v1/metrics",
    )
    rows = cells(settings)
    assert rows["sealed door"] == rows["metrics"].partition(", in clear")[0].replace("127", "open, 127")
    assert rows["pinned-TLS door"] == rows["gRPC door"] == "closed, only sealed messages may come in"
    assert rows["isolation"].startswith("NONE")
    assert (rows["batching"], rows["authentication"]) == ("off", "keys and tokens of 'access.toml'")
    assert rows["models"].endswith("no uploads")
    assert rows["requests"].startswith("at most 1,001 bytes each")
    assert rows["telemetry"] == "sent to http://127.0.0.1:4318/v1/metrics"


@pytest.mark.network
def test_a_config_that_is_checked_shows_the_table_on_stderr_as_it_would_be_served() -> None:
    command = [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--check-config", "--require-sealed"]
    variables = {**os.environ, DISABLE_TELEMETRY: "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    assert ended.stdout == "the settings are in order\n"
    assert ended.stderr.splitlines() == start_table(Settings(simulation=True, require_sealed=True))
