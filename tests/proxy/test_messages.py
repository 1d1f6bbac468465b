"""What of a local request crosses the seal, what is refused before it, and what a failure looks like."""

from __future__ import annotations

import json

import pytest

from blindai.errors import (
    InferenceError,
    InvalidInputError,
    MethodNotAllowedError,
    ModelNotFoundError,
    OverloadedError,
    UnauthenticatedError,
)
from blindai.proxy.messages import LocalRequest, credential_of, refusal, sealed_request


def asking(path: str = "/v2/models/m/infer", method: str = "POST", **headers: str) -> LocalRequest:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return LocalRequest(method=method, path=path, headers=pairs, body=b"body")


def test_what_the_protocol_knows_crosses_and_nothing_else() -> None:
    known = {
        "inference_header_content_length": "3", "content_encoding": "gzip", "if_match": '"x"',
        "blindai_deadline_ms": "250",
    }  # fmt: skip
    sealed = sealed_request(
        asking(**known, content_type="application/json", cookie="c", user_agent="u", host="h", authorization="Bearer k")
    )
    assert dict(sealed.headers) == {name.replace("_", "-"): value for name, value in known.items()}
    assert (sealed.content_type, sealed.method, sealed.path) == ("application/json", "POST", "/v2/models/m/infer")
    assert list(sealed.body()) == list(sealed.body()) == [b"body"]


def test_head_is_asked_as_get() -> None:
    assert sealed_request(asking(method="HEAD")).method == "GET"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get"])
def test_methods_that_no_sealed_head_knows_are_refused(method: str) -> None:
    with pytest.raises(MethodNotAllowedError) as refused:
        sealed_request(asking(method=method))
    assert dict(refusal(refused.value, status=405).headers)["allow"] == "DELETE, GET, HEAD, POST"


@pytest.mark.parametrize("path", ["", "v2", "/" + "a" * 2048, "/a b", "/é", "/\x00"])
def test_paths_that_no_sealed_head_holds_are_not_served(path: str) -> None:
    with pytest.raises(ModelNotFoundError):
        sealed_request(asking(path))


def test_headers_that_no_sealed_head_holds_are_refused_without_their_words() -> None:
    for value in ("é", "a" * 8193, "\x00"):
        with pytest.raises(InvalidInputError, match="content-type") as refused:
            sealed_request(asking(content_type=value))
        assert value not in str(refused.value)


@pytest.mark.parametrize("name", ["authorization", "content-type", "if-match", "blindai-deadline-ms"])
def test_a_header_that_decides_something_stands_there_once(name: str) -> None:
    twice = LocalRequest(method="GET", path="/v2", headers=((name, "1"), (name, "1")))
    with pytest.raises(InvalidInputError, match="twice"):
        (credential_of if name == "authorization" else sealed_request)(twice)


@pytest.mark.parametrize(
    ("method", "path", "repeatable"),
    [
        ("GET", "/v2", True),
        ("HEAD", "/v2/health/ready", True),
        ("GET", "/openapi.json", True),
        ("GET", "/v2/models/m/versions/1/stats", True),
        ("GET", "/v2/access/keys", True),
        ("POST", "/v2/models/m/infer", True),
        ("POST", "/v2/models/m/versions/1/infer", True),
        ("POST", "/v2/repository/index", True),
        ("POST", "/v2/repository/models/m/load", False),
        ("POST", "/v2/repository/models/m/unload", False),
        ("DELETE", "/v2/repository/models/m", False),
        ("POST", "/v2/access/keys", False),
        ("POST", "/v2/models/m/infer/x", False),
    ],
)
def test_only_what_changes_nothing_may_run_twice(method: str, path: str, repeatable: bool) -> None:  # noqa: FBT001
    assert sealed_request(LocalRequest(method=method, path=path)).repeatable is repeatable


def test_who_says_nothing_is_the_proxys_own_principal_and_nobody_else_is() -> None:
    assert credential_of(asking()) is None
    for text in ("Bearer key", "bearer key", "BEARER  key "):
        assert credential_of(asking(authorization=text)) == "key"
    for text in ("", " ", "Bearer", "Bearer ", "Basic dTpw", "key"):
        with pytest.raises(UnauthenticatedError) as refused:
            credential_of(asking(authorization=text))
        assert "dTpw" not in f"{refused.value} {refused.value.hint}"


def test_a_failure_is_json_and_says_when_to_come_back() -> None:
    busy = refusal(OverloadedError("busy", retry_after_s=7), status=429, prefix="no: ")
    assert json.loads(busy.body) == {"error": "no: busy", "code": "overloaded", "hint": ""}
    assert dict(busy.headers) == {"content-type": "application/json", "retry-after": "7"}
    assert "retry-after" not in dict(refusal(InferenceError("x"), status=500).headers)
