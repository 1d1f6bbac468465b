"""Triton's other extensions: what is left out on purpose answers so (X), and hostile bodies (Z1, Z7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.checks import check, refused, require_alive, succeeded

if TYPE_CHECKING:
    from conformance.server_under_test import ServerUnderTest


@check("X1")
def _logging(server: ServerUnderTest) -> None:
    """Log settings are not advertised, and not served."""
    assert "logging" not in succeeded(server.ask("GET", "/v2"))["extensions"]
    refused(server.ask("GET", "/v2/logging"), 501)


@check("X2")
def _trace(server: ServerUnderTest) -> None:
    """Nor tracing."""
    assert "trace" not in succeeded(server.ask("GET", "/v2"))["extensions"]
    refused(server.ask("GET", "/v2/trace/setting"), 501)
    refused(server.ask("GET", "/v2/models/simple/trace/setting"), 501)


@check("X3")
def _shared_memory(server: ServerUnderTest) -> None:
    """Nor shared memory."""
    assert not any("memory" in name for name in succeeded(server.ask("GET", "/v2"))["extensions"])
    refused(server.ask("GET", "/v2/systemsharedmemory/status"), 501)
    refused(server.ask("POST", "/v2/systemsharedmemory/region/r/register", {"key": "/x", "byte_size": 1}), 501)


@check("X4")
def _cuda(server: ServerUnderTest) -> None:
    """On the graphics card either."""
    refused(server.ask("GET", "/v2/cudasharedmemory/status"), 501)
    refused(server.ask("POST", "/v2/cudasharedmemory/region/r/register", {"byte_size": 1}), 501)


@check("X8")
def _log_file(server: ServerUnderTest) -> None:
    """No file is named over the network."""
    refused(server.ask("POST", "/v2/logging", {"log_file": "/tmp/x"}), 501)  # noqa: S108  # never made


@check("X9")
def _trace_file(server: ServerUnderTest) -> None:
    """For traces neither."""
    refused(server.ask("POST", "/v2/trace/setting", {"trace_file": "/tmp/x"}), 501)  # noqa: S108  # never made


@check("Z1")
def _deep(server: ServerUnderTest) -> None:
    """Deep JSON outside inference."""
    for path in ("/v2/repository/index", "/v2/repository/models/simple/load", "/v2/repository/models/simple/unload"):
        for opening in (b"[", b'{"a":'):
            refused(server.ask("POST", path, opening * 250_000), (400, 413))
    require_alive(server)


@check("Z7")
def _huge_claim(server: ServerUnderTest) -> None:
    """A shape claims what no body has."""
    for datatype in ("INT32", "BYTES", "BOOL"):
        claim = {"name": "INPUT0", "datatype": datatype, "shape": [1, 2**40], "parameters": {"binary_data_size": 8}}
        refused(server.ask("POST", "/v2/models/simple/infer", {"inputs": [claim]}), 400)
    require_alive(server)
