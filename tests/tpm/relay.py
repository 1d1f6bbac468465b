"""A socket between a server and a TPM: it counts commands, can hold one back, and can ask another TPM instead."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUOTE, ACTIVATE = 0x158, 0x147
NV_READ, NV_READ_PUBLIC = 0x14E, 0x169


class TpmRelay:
    """Serves one server at a time.

    Attributes:
        counts: how often each command came.
        slow_s: how long a command is held back, by its code.
        instead: what answers a command instead of the TPM, by its code.
    """

    def __init__(self, path: Path, tpm: Callable[[bytes], bytes]) -> None:
        self.path, self._tpm = path, tpm
        self.counts: Counter[int] = Counter()
        self.slow_s: dict[int, float] = {}
        self.instead: dict[int, Callable[[bytes], bytes]] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """As `SoftwareTpm`: here anybody may come in at any time."""

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while command := connection.recv(4096):
                    connection.sendall(self._answer(command))

    def _answer(self, command: bytes) -> bytes:
        code = int.from_bytes(command[6:10], "big")
        self.counts[code] += 1
        time.sleep(self.slow_s.get(code, 0.0))
        return self.instead.get(code, self._tpm)(command)
