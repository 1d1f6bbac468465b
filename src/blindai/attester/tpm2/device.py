"""Sends one command to a TPM and reads its answer (TPM 2.0 Library part 1 §18, part 3 §5).

    command = u16 tag ‖ u32 size ‖ u32 code ‖ handles ‖ [u32 size ‖ authorisations] ‖ parameters
    answer  = u16 tag ‖ u32 size ‖ u32 result ‖ [handle] ‖ [u32 size] ‖ parameters ‖ [authorisations]

Leaves out: which commands there are (commands.py).
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import AttesterError

if TYPE_CHECKING:
    from collections.abc import Callable

NO_SESSIONS, SESSIONS = 0x8001, 0x8002
MAX_ANSWER_BYTES = 4096
_HEADER = struct.Struct(">HII")
_FORMAT_ONE = 0x080
_POLICY_FAIL = 0x01D
_SEND_AGAIN = (0x908, 0x90A, 0x922)  # TPM_RC_YIELDED, _TESTING, _RETRY: the command was not begun (part 2 §6.6.3)
_ATTEMPTS = 8
_PAUSE_S = 0.02
_SOCKET_TIMEOUT_S = 120.0  # a hardware TPM may draw an RSA key for a minute; who does not answer then never does
_LEAST_WAIT_S = 0.001  # zero would mean not to wait at all, which has another error
_TAG_OF_1_2 = 0x00C4  # of its answers, to commands that it does not know too (TPM Main 1.2 part 2 §6)


class TpmRefusedError(AttesterError):
    """The TPM answered with a result that is no success.

    Attributes:
        result: TPM_RC (part 2 §6.6).
    """

    def __init__(self, what: str, result: int) -> None:
        super().__init__(f"the TPM refused {what}: result 0x{result:x}")
        self.result = result

    @property
    def is_policy(self) -> bool:
        """Whether the policy of an object was not met (TPM_RC_POLICY_FAIL)."""
        return self.result & _FORMAT_ONE != 0 and self.result & 0x3F == _POLICY_FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A successful answer.

    Attributes:
        handle: of what was made, or None.
        parameters: the rest, without authorisations.
    """

    handle: int | None
    parameters: bytes


def run(
    send: Callable[[bytes], bytes],
    code: int,
    what: str,
    *,
    handles: tuple[int, ...] = (),
    authorisation: bytes = b"",
    parameters: bytes = b"",
    makes_handle: bool = False,
) -> Answer:
    """Run one command.

    Args:
        send: carries a whole command to the TPM and brings the whole answer.
        code: TPM_CC.
        what: the command in words, for errors.
        handles: what it is about.
        authorisation: a TPMS_AUTH_COMMAND for the first handle, or nothing.
        parameters: as the command takes them.
        makes_handle: whether the answer begins with a handle.

    Raises:
        TpmRefusedError: the TPM says no.
        AttesterError: what came is no answer.
    """
    body = b"".join(handle.to_bytes(4, "big") for handle in handles)
    if authorisation:
        body += len(authorisation).to_bytes(4, "big") + authorisation
    body += parameters
    tag = SESSIONS if authorisation else NO_SESSIONS
    command = _HEADER.pack(tag, _HEADER.size + len(body), code) + body
    for attempt in range(_ATTEMPTS):
        answered_tag, result, answered = _exchange(send, command, what)
        if result not in _SEND_AGAIN:
            break
        time.sleep(_PAUSE_S * attempt)
    if result:
        raise TpmRefusedError(what, result)
    return _parse(answered, makes_handle=makes_handle, has_sessions=answered_tag == SESSIONS)


def _exchange(send: Callable[[bytes], bytes], command: bytes, what: str) -> tuple[int, int, bytes]:
    """Tag, result, and what follows them."""
    answer = send(command)
    if len(answer) < _HEADER.size:
        raise AttesterError(f"the TPM's answer to {what} is cut")
    tag, size, result = _HEADER.unpack_from(answer)
    if size != len(answer):
        raise AttesterError(f"the TPM's answer to {what} has another length than it says")
    if tag == _TAG_OF_1_2:
        raise AttesterError("this is a TPM 1.2", hint="a TPM 2.0 is needed; some firmware can switch between the two")
    return tag, result, answer[_HEADER.size :]


def _parse(body: bytes, *, makes_handle: bool, has_sessions: bool) -> Answer:
    handle = int.from_bytes(body[:4], "big") if makes_handle else None
    body = body[4:] if makes_handle else body
    if has_sessions:
        size = int.from_bytes(body[:4], "big")
        body = body[4 : 4 + size]
    return Answer(handle=handle, parameters=body)


class TpmFile:
    """The kernel's device with its own resource manager, `/dev/tpmrm0`; may be used from several threads.

    Raises:
        AttesterError: there is none, or this user may not use it.
    """

    def __init__(self, path: str) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _no_tpm(path, error) from None
        self._lock = threading.Lock()

    def __call__(self, command: bytes) -> bytes:
        """Send a command; blocks until the TPM has answered."""
        try:
            with self._lock:
                os.write(self._descriptor, command)
                return os.read(self._descriptor, MAX_ANSWER_BYTES)
        except OSError as error:
            raise AttesterError(f"the TPM does not answer: {error.strerror}") from None

    def close(self) -> None:
        """Let the device go."""
        os.close(self._descriptor)


class TpmSocket:
    """A TPM behind a Unix socket, as swtpm serves it; may be used from several threads.

    Args:
        path: of the socket.
        timeout_s: how long one command may take; after that the connection is closed, since a late answer would be
            taken for that of the next command.

    Raises:
        AttesterError: nobody listens there.
    """

    def __init__(self, path: str, *, timeout_s: float = _SOCKET_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise _no_tpm(path, error) from None
        self._lock = threading.Lock()

    def __call__(self, command: bytes) -> bytes:
        """Send a command; blocks until the TPM has answered, or the time for it is over."""
        with self._lock:
            until_s = time.monotonic() + self._timeout_s
            try:
                self._socket.settimeout(self._timeout_s)
                self._socket.sendall(command)
                answer = self._receive(_HEADER.size, until_s)
                size = min(_HEADER.unpack(answer)[1], MAX_ANSWER_BYTES)
                return answer + self._receive(size - len(answer), until_s)
            except TimeoutError:
                self._socket.close()
                raise AttesterError(
                    f"the TPM behind the socket did not answer within {self._timeout_s:g} s",
                    hint="see whether swtpm runs, and serves nobody else: it takes one connection at a time",
                ) from None
            except (OSError, struct.error) as error:
                raise AttesterError(f"the TPM does not answer: {error}") from None

    def _receive(self, size: int, until_s: float) -> bytes:
        received = b""
        while len(received) < size:
            self._socket.settimeout(max(until_s - time.monotonic(), _LEAST_WAIT_S))
            piece = self._socket.recv(size - len(received))
            if not piece:
                break
            received += piece
        return received

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()


SOCKET_PREFIX = "unix:"


def open_tpm(where: str) -> TpmFile | TpmSocket:
    """A device such as `/dev/tpmrm0`, or `unix:PATH` for a socket.

    Raises:
        AttesterError: there is no TPM.
    """
    return TpmSocket(where.removeprefix(SOCKET_PREFIX)) if where.startswith(SOCKET_PREFIX) else TpmFile(where)


def _no_tpm(path: str, error: OSError) -> AttesterError:
    what = "this user may not use the TPM at" if isinstance(error, PermissionError) else "there is no TPM at"
    return AttesterError(
        f"{what} {path}: {error.strerror}",
        hint="/dev/tpmrm0 is where Linux shows a TPM 2.0; the server's user must be of its group, often `tss`",
    )
