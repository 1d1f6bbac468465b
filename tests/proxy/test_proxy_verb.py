"""`blindai proxy` as a user starts and stops it: what it prints, and what its exit code says."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from access.tenants import access_toml, draw_keys
from e2e.running_server import RunningServer
from proxy.local_proxy import STOP_S, proxy_process

from blindai.errors import InvalidInputError
from blindai.proxy.run import Address, parse_address

if TYPE_CHECKING:
    from pathlib import Path

ANY = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")


def run_verb(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The verb where it must end by itself."""
    command = [sys.executable, "-m", "blindai.cli.main", "proxy", url, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_addresses_are_of_this_machine() -> None:
    assert parse_address("127.0.0.1:8000") == Address(host="127.0.0.1", port=8000)
    assert parse_address("localhost:0") == Address(host="127.0.0.1", port=0)
    assert str(parse_address("[::1]:8000")) == "[::1]:8000"
    for text in ("0.0.0.0:8000", "[::]:8000", "192.168.1.2:8000", "example.com:80", "127.0.0.1.example.com:80"):
        with pytest.raises(InvalidInputError, match="not a loopback"):
            parse_address(text)
    for text in ("", "8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1"):
        with pytest.raises(InvalidInputError, match="is not host:port"):
            parse_address(text)


@pytest.mark.network
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_with_0(
    server: RunningServer, tmp_path: Path, number: signal.Signals
) -> None:
    with proxy_process(server.url, tmp_path / "log") as running:
        assert get(f"{running.at.http}/v2/health/ready") == (200, b'{"ready":true}')
        running.process.send_signal(number)
        assert running.process.wait(STOP_S) == 0
    log = (tmp_path / "log").read_text()
    assert "SIMULATION, NOT SECURE" in log
    assert "verified: level simulated, service 'blindai-srv'" in log
    assert "Traceback" not in log


@pytest.mark.network
def test_exit_codes_say_why_it_did_not_start(server: RunningServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options, code, words in (
            (ANY, 5, "simulation"),
            ((*ANY, "--insecure-simulation", "--service", "another"), 5, "another"),
            (("--insecure-simulation", "--http", f"127.0.0.1:{port}", "--grpc", ""), 1, "cannot listen"),
            (("--insecure-simulation", "--http", "127.0.0.1:0", "--grpc", f"127.0.0.1:{port}"), 1, "cannot listen"),
            (("--insecure-simulation", "--http", "0.0.0.0:0"), 2, "loopback"),
            ((*ANY, "--insecure-simulation", "--policy", "strict"), 2, "choose one of"),
            ((*ANY, "--insecure-simulation", "--require-level", "best"), 2, "best"),
        ):
            ended = run_verb(server.url, *options)
            assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
            assert words in ended.stderr
            assert "Traceback" not in ended.stderr


@pytest.mark.network
def test_no_server_is_a_failure() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ended = run_verb(f"https://127.0.0.1:{free.getsockname()[1]}", *ANY, "--insecure-simulation")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "cannot connect" in ended.stderr
    assert "cannot listen" not in ended.stderr


@pytest.mark.network
def test_its_own_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    keys = draw_keys()
    (tmp_path / "access.toml").write_text(access_toml(keys))
    key, file = keys.text["alpha-infer"], tmp_path / "key"
    server = RunningServer(tmp_path / "server.log", options=("--access", str(tmp_path / "access.toml")))
    try:
        file.write_text(f"{key}\n")
        by_file = proxy_process(server.url, tmp_path / "file.log", "--api-key-file", str(file))
        by_name = proxy_process(server.url, tmp_path / "name.log", environment={"BLINDAI_API_KEY": key})
        nobody = proxy_process(server.url, tmp_path / "none.log", environment={"BLINDAI_API_KEY": ""})
        with by_file as first, by_name as second, nobody as third:
            assert get(f"{first.at.http}/v2/models")[0] == get(f"{second.at.http}/v2/models")[0] == 200
            status, said = get(f"{third.at.http}/v2/models")
            assert (status, json.loads(said)["code"]) == (401, "unauthenticated")
            assert get(f"{third.at.http}/v2/models", Authorization=f"Bearer {key}")[0] == 200
        for log in ("file.log", "name.log", "none.log", "server.log"):
            assert key not in (tmp_path / log).read_text()
    finally:
        server.stop()
