"""swtpm, a whole TPM 2.0 in software, spoken to over a socket."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import TYPE_CHECKING

from blindai.attester.tpm2.commands import password, u16, u32
from blindai.attester.tpm2.device import run

if TYPE_CHECKING:
    from pathlib import Path

_START_S = 10.0


class SoftwareTpm:
    """A TPM that runs until `stop`, and has what it had when it is started again in the same folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Power on."""
        data, control = self.path, self._folder / "control.sock"
        data.unlink(missing_ok=True)
        command = [
            "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._folder}", "--server", f"type=unixio,path={data}",
            "--ctrl", f"type=unixio,path={control}", "--flags", "not-need-init,startup-clear",
        ]  # fmt: skip
        self._process = subprocess.Popen(command)
        self._connect()

    @property
    def path(self) -> Path:
        """Of the socket; swtpm talks to one at a time."""
        return self._folder / "data.sock"

    def release(self) -> None:
        """Let somebody else talk to it; the next command of ours takes it back."""
        self._socket.close()

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        until_s = time.monotonic() + _START_S
        while True:
            try:
                self._socket.connect(str(self.path))
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < until_s, "swtpm did not start"
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """Power off."""
        self._socket.close()
        self._process.terminate()
        self._process.wait()

    def __call__(self, command: bytes) -> bytes:
        """What carries a command."""
        if self._socket.fileno() < 0:
            self._connect()
        self._socket.sendall(command)
        answer = self._socket.recv(4096)
        while len(answer) < int.from_bytes(answer[2:6], "big"):
            answer += self._socket.recv(4096)
        return answer

    def extend(self, pcr: int, digest: bytes) -> None:
        """Measure something, as firmware and boot loaders do (TPM2_PCR_Extend)."""
        digests = u32(1) + u16(0x000B) + digest
        run(self, 0x182, "to extend", handles=(pcr,), authorisation=password(), parameters=digests)
