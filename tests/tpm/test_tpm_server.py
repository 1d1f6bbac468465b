"""A server without simulation: its TPM attests it, and a client that names the TPM's key trusts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from e2e import tiny_models

import blindai
from blindai.attestation.checks import Checks
from blindai.attestation.tee import tpm as verifier
from blindai.attester.tpm import TpmAttester
from blindai.errors import PolicyViolationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tpm.relay import TpmRelay
    from tpm.software_tpm import SoftwareTpm

pytestmark = [pytest.mark.swtpm, pytest.mark.network]

POLICY = """
version = 1
insecure_simulation = false
[operator]
skip = "a test"
[release]
skip = "a test"
[level]
minimum = "fresh"
[runtime]
require = {{ sealing = "tpm" }}
[tee.tpm]
bank = "sha256"
required_pcrs = {pcrs}
pcrs = {{ 11 = ["{pcr_11}"] }}
boot_applications = {{ skip = "swtpm boots nothing" }}
kernel = {{ skip = "swtpm boots nothing" }}
initrd = {{ skip = "swtpm boots nothing" }}
command_line = {{ skip = "swtpm boots nothing" }}
boot_files = {{ skip = "swtpm boots nothing" }}
secure_boot = {{ skip = "swtpm boots nothing" }}
firmware_closed = {{ skip = "swtpm boots nothing" }}
firmware_flags = {{ skip = "swtpm boots nothing" }}
debug_arguments = {{ skip = "swtpm boots nothing" }}
ak_certified = ["ak_name"]
ak_roots = {{ skip = "no vendor certifies it" }}
ak_names = ["{ak_name}"]
ek_roots = []
revocation_grace_s = {{ skip = "no vendor certifies it" }}
clock_safe = {{ skip = "swtpm's clock is young" }}
max_restart_count = 0
minimum_firmware_version = {{ skip = "swtpm" }}
track = []
"""


class Server:
    """`blindai serve --tpm` on a TPM's socket."""

    def __init__(self, tpm: SoftwareTpm | TpmRelay, folder: Path, *more: str) -> None:
        command = [sys.executable, "-m", "blindai.cli.main", "serve", "--tpm", f"unix:{tpm.path}"]
        options = ["--port", "0", "--grpc-port", "0", "--metrics-port", "0", "--model-store", str(folder / "kept")]
        self._log = (folder / "log").open("ab")
        tpm.release()
        self.process = subprocess.Popen(
            [*command, *options, *more], stdout=subprocess.PIPE, stderr=self._log, start_new_session=True
        )
        assert self.process.stdout
        words = self.process.stdout.readline().decode().split()
        assert words, (folder / "log").read_text()
        self.url = words[1]

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self._log.close()


@pytest.fixture
def policy(tpm: SoftwareTpm, tmp_path: Path) -> Iterator[Path]:
    """One that names this TPM, and what it measured."""
    tpm.extend(11, b"k" * 32)
    claims = verifier.verify(TpmAttester(tpm, tmp_path / "no-log").attest(bytes(64)), 0.0, Checks())
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.format(pcrs=list(range(24)), pcr_11=claims.pcrs[11].hex(), ak_name=claims.ak_name.hex()))
    yield path
    tpm.release()


def test_a_client_trusts_what_the_tpm_vouches_for_over_a_kill(tpm: SoftwareTpm, policy: Path, tmp_path: Path) -> None:
    model = tiny_models.times(tmp_path / "m.onnx", 3)
    server = Server(tpm, tmp_path)
    try:
        with blindai.connect(server.url, policy=policy) as client:
            assert client.attestation.level == "fresh"
            assert not client.attestation.simulated
            client.upload_model(model, name="m")
            assert client.infer("m", [1, 2, 3])["y"].tolist() == [[3, 6, 9]]
    finally:
        server.kill()
    server = Server(tpm, tmp_path)
    try:
        with blindai.connect(server.url, policy=policy) as client:
            assert client.infer("m", [1, 2, 3])["y"].tolist() == [[3, 6, 9]]
    finally:
        server.kill()


def test_a_machine_that_booted_something_else_is_refused(tpm: SoftwareTpm, policy: Path, tmp_path: Path) -> None:
    tpm.extend(11, b"another" + bytes(25))
    server = Server(tpm, tmp_path)
    try:
        with pytest.raises(PolicyViolationError) as refusal:
            blindai.connect(server.url, policy=policy)
        assert refusal.value.finding_code == "tpm.pcrs"
    finally:
        server.kill()


def test_a_tpm_that_cannot_quote_ends_the_start(tmp_path: Path) -> None:
    """Else each client would be told of a fault in the server."""
    path = tmp_path / "old-tpm.sock"
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as beside:
        listener.bind(str(path))
        listener.listen(1)
        beside.submit(_answer_as_of_before, listener)
        command = [sys.executable, "-m", "blindai.cli.main", "serve", "--tpm", f"unix:{path}", "--port", "0"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "this is a TPM 1.2" in ended.stderr
    assert not ended.stdout


def _answer_as_of_before(listener: socket.socket) -> None:
    """TPM_BADTAG, as a TPM 1.2 answers a 2.0's commands."""
    connection, _ = listener.accept()
    with connection:
        while connection.recv(4096):
            connection.sendall(bytes.fromhex("00c40000000a0000001e"))
