"""Health and server metadata (H)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.checks import check, refused, succeeded

if TYPE_CHECKING:
    from conformance.server_under_test import ServerUnderTest


@check("H1")
def _live(server: ServerUnderTest) -> None:
    """The server says in JSON that it lives."""
    assert succeeded(server.ask("GET", "/v2/health/live")) == {"live": True}


@check("H2")
def _ready(server: ServerUnderTest) -> None:
    """And that it is ready."""
    assert succeeded(server.ask("GET", "/v2/health/ready")) == {"ready": True}


@check("H3")
def _live_by_post(server: ServerUnderTest) -> None:
    """Another method is refused, with those that there are."""
    answer = server.ask("POST", "/v2/health/live")
    refused(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


@check("H4")
def _metadata(server: ServerUnderTest) -> None:
    """Name, version and extensions, each of which has checks here."""
    found = succeeded(server.ask("GET", "/v2"))
    assert found["name"]
    assert found["version"]
    assert set(found["extensions"]) == {
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "schedule_policy",
        "statistics",
    }


@check("H5")
def _slash(server: ServerUnderTest) -> None:
    """The path of OIP's OpenAPI file has a slash at its end."""
    assert succeeded(server.ask("GET", "/v2/")) == succeeded(server.ask("GET", "/v2"))
    assert succeeded(server.ask("GET", "/v2/"))["name"]


@check("H6")
def _metadata_by_post(server: ServerUnderTest) -> None:
    """POST /v2 is refused."""
    refused(server.ask("POST", "/v2"), 405)


@check("H7")
def _nothing(server: ServerUnderTest) -> None:
    """What is not served is not found."""
    refused(server.ask("GET", "/v2/nope"), 404)


@check("H8")
def _root(server: ServerUnderTest) -> None:
    """The root shows no banner and no version."""
    answer = server.ask("GET", "/")
    refused(answer, 404)
    version = server.ask("GET", "/v2").json["version"]
    assert version not in f"{answer.headers} {answer.body!r}"
    assert "server" not in answer.headers


@check("H9")
def _head(server: ServerUnderTest) -> None:
    """HEAD answers as GET does, without a body."""
    paths = ("/v2", "/v2/health/live", "/v2/models/simple", "/v2/models/simple/ready")
    for path, status in (*((path, 200) for path in paths), ("/v2/models/nope", 404), ("/nope", 404)):
        answer = server.ask("HEAD", path)
        assert (answer.status, answer.body) == (status, b""), path
        assert server.ask("GET", path).status == status


@check("H10")
def _trace(server: ServerUnderTest) -> None:
    """TRACE is refused and echoes nothing."""
    answer = server.ask("TRACE", "/v2", x_secret="canary-of-trace")
    refused(answer, 405)
    assert b"canary-of-trace" not in answer.body


@check("H11")
def _failures_are_json(server: ServerUnderTest) -> None:
    """Every failure of every kind of route has a text under `error`."""
    for method, path in (
        ("GET", "/nope"),
        ("PUT", "/v2"),
        ("GET", "/v2/models/nope"),
        ("GET", "/v2/models/nope/versions/1/stats"),
        ("POST", "/v2/models/nope/infer"),
        ("DELETE", "/v2/models/simple"),
        ("POST", "/v2/repository/models/nope/load"),
        ("GET", "/v2/systemsharedmemory/status"),
    ):
        refused(server.ask(method, path), (404, 405, 501))
