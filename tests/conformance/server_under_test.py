"""One server, seen from outside: requests over HTTP/1.1 as they are, and answers as they come.

Leaves out: any client library, which would hide what the server really says.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from conformance.models import conformance_models

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON; bare NaN is none."""
        return json.loads(self.body, parse_constant=_no_constant)

    def is_json(self) -> bool:
        """By its content type."""
        return self.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


class ServerUnderTest:
    """Where to ask.

    Args:
        url: `http://host:port` or `https://host:port`.
        ca: file of the certificate to trust; None trusts any.
        headers: of every request, such as a credential.
    """

    def __init__(self, url: str, *, ca: str | None = None, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._is_tls = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._headers = headers or {}
        self._context = ssl.create_default_context(cafile=ca)
        if ca is None:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own; `_` in a header's name stands for `-`.

        Args:
            method: HTTP's.
            path: as it goes on the wire.
            body: bytes, or what becomes JSON.
            headers: beside those of every request.
        """
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = self._connection()
        try:
            connection.request(method, path, body=data, headers={**self._headers, **names})
            return self._read(connection)
        finally:
            connection.close()

    def ask_chunked(self, path: str, body: bytes, **headers: str) -> Answer:
        """A POST whose length is not told."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = self._connection()
        try:
            pieces = (body[start : start + 100] for start in range(0, len(body), 100))
            connection.request("POST", path, body=pieces, headers={**self._headers, **names}, encode_chunked=True)
            return self._read(connection)
        finally:
            connection.close()

    def send_raw(self, request: bytes) -> bytes:
        """Whatever comes back to these bytes until the server closes, or says no more."""
        with socket.create_connection((self._host, self._port), timeout=TIMEOUT_S) as plain:
            stream = self._context.wrap_socket(plain, server_hostname=self._host) if self._is_tls else plain
            with stream:
                stream.sendall(request)
                received = bytearray()
                while piece := stream.recv(65536):
                    received += piece
                return bytes(received)

    def install(self) -> None:
        """Put the models in by load requests; needs the role for it."""
        for model in conformance_models():
            answer = self.ask(
                "POST",
                f"/v2/repository/models/{model.name}/load",
                {
                    "parameters": {
                        "config": model.config_json,
                        "file:1/model.onnx": base64.b64encode(model.file).decode(),
                    }
                },
            )
            assert answer.status == 200, (model.name, answer.body)

    def _connection(self) -> http.client.HTTPConnection:
        if self._is_tls:
            return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)

    @staticmethod
    def _read(connection: http.client.HTTPConnection) -> Answer:
        response = connection.getresponse()
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=response.read(),
        )


def _no_constant(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")
