"""How a path becomes a handler: decoded once, with the methods that it has, for those who may."""

from __future__ import annotations

import re

import pytest

from blindai.server.access import TO_UPLOAD
from blindai.server.dispatch import ROUTES, TABLE
from blindai.server.routes import Target, decoded, methods_of


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/models/m", Target(model="m")),
        ("/v2/models/m/versions/3", Target(model="m", version="3")),
        ("/v2/models/t:m@sha256:00", Target(model="t:m@sha256:00")),
        ("/v2/models/%6d", Target(model="m")),
        ("/v2/models/%256d", Target(model="%6d")),
        ("/v2/models/stats/infer", Target(model="stats")),
    ],
)
def test_paths_name_their_target(path: str, target: Target) -> None:
    assert TABLE.at(path)[0][1] == target


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//v2", "/v2//", "/v2/models/", "/v2/models//infer", "/v2/models/a%2fb", "/v2/models/a%2Fb",
        "/v2/models/a%5Cb", "/v2/models/%00", "/v2/models/%ff", "/v2/models/%0a", "/v2?x=1", "/v2/models/a/../b/c/d",
        "/V2", "/v2/models/m/versions/1/versions/2", "/v2" + "/x" * 5000,
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_no_path_is_not_found(path: str) -> None:
    assert TABLE.at(path) == ()


def test_names_are_decoded_to_text() -> None:
    assert decoded("/v2/models/%C3%A9") == "/v2/models/é"
    assert decoded("/v2/models/%E2%80%AE") is None  # turns the text of a log around


def test_a_path_names_all_its_methods() -> None:
    assert methods_of(TABLE.at("/v2/models/m")) == "GET, HEAD"
    assert methods_of(TABLE.at("/v2/repository/models/m")) == "DELETE"
    assert methods_of(TABLE.at("/v2/access/keys")) == "GET, HEAD, POST"


def test_what_changes_models_takes_another_role_than_what_runs_them() -> None:
    changing = {route.path for route in ROUTES if route.roles == TO_UPLOAD}
    assert {f"/v2/repository/models/{{model}}/{verb}" for verb in ("load", "unload", "upload")} <= changing
    assert not [path for path in changing if not re.match(r"/v2/repository/models/\{model\}", path)]
