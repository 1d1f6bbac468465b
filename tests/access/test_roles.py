"""Every route against every role, and what the handlers of management answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blindai.server.access import Principal, Role
from blindai.server.calls import Call, Reply
from blindai.server.dispatch import ROUTES, TABLE, dispatch
from blindai.server.server_metadata import LEFT_OUT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from access.tenants import House

ALL = frozenset(Role)
UPLOADERS = {Role.UPLOAD, Role.ADMIN}
# An example of each route, and the roles that may come in.
EXPECTED: dict[tuple[str, str], set[Role] | frozenset[Role]] = {
    ("GET", "/v2"): ALL,
    ("GET", "/v2/"): ALL,
    ("GET", "/v2/health/live"): ALL,
    ("GET", "/v2/health/ready"): ALL,
    ("GET", "/v2/openapi.json"): ALL,
    ("GET", "/openapi.json"): ALL,
    ("GET", "/v2/models"): ALL,
    ("GET", "/v2/models/stats"): ALL,
    **{
        (method, path + end): roles
        for path in ("/v2/models/m", "/v2/models/m/versions/1")
        for method, end, roles in (
            ("POST", "/infer", {Role.INFER, Role.ADMIN}),
            ("GET", "", ALL),
            ("GET", "/ready", ALL),
            ("GET", "/config", ALL),
            ("GET", "/stats", ALL),
        )
    },
    ("POST", "/v2/repository/index"): ALL,
    ("GET", "/v2/repository/models"): ALL,
    ("POST", "/v2/repository/models/m/load"): UPLOADERS,
    ("POST", "/v2/repository/models/m/unload"): UPLOADERS,
    ("DELETE", "/v2/repository/models/m/versions/1"): UPLOADERS,
    ("POST", "/v2/repository/models/m/upload"): UPLOADERS,
    ("DELETE", "/v2/repository/models/m"): UPLOADERS,
    ("GET", "/v2/repository/models/m/sharing"): UPLOADERS,
    ("POST", "/v2/repository/models/m/sharing"): UPLOADERS,
    ("GET", "/v2/access/keys"): {Role.ADMIN},
    ("POST", "/v2/access/keys"): {Role.ADMIN},
    ("DELETE", "/v2/access/keys/k"): {Role.ADMIN},
    ("GET", "/v2/access/revocations"): {Role.ADMIN},
    ("POST", "/v2/access/revocations"): {Role.ADMIN},
    ("DELETE", "/v2/access/revocations/0123456789ab"): {Role.ADMIN},
}


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    yield memoryview(body)


def ask(house: House, method: str, path: str, body: bytes = b"", *, roles: frozenset[Role] = ALL) -> Reply:
    principal = Principal(tenant="alpha", roles=roles, share="alpha")
    call = Call(principal=principal, method=method, path=path, headers={}, body=_pieces(body))
    return house.loop.run_until_complete(dispatch(house.app.sealed.service, call))


def members(reply: Reply) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(b"".join(reply.body))
    return decoded


def test_the_table_names_every_route() -> None:
    def matching(method: str, path: str) -> list[int]:
        fitting = [route for route, _ in TABLE.at(path)]
        return [at for at, route in enumerate(ROUTES) if route.method == method and route in fitting]

    named = [at for example in EXPECTED for at in matching(*example)[:1]]  # of two that fit, the first counts
    left_out = [at for at, route in enumerate(ROUTES) if route.path in LEFT_OUT]
    assert len(named) == len(EXPECTED)
    assert sorted(named + left_out) == list(range(len(ROUTES)))


def test_no_handler_reaches_past_the_callers_tenant() -> None:
    """Handlers take `service.models_of(principal)`, or name the tenant that the store is asked about."""
    folder = Path(dispatch.__code__.co_filename).parent
    calls = [
        call for path in folder.glob("*.py") for call in re.findall(r"service\.store\.\w+\(.*", path.read_text("utf-8"))
    ]
    of_a_digest_or_record = re.compile(r"service\.store\.(having|holds|reconfigure|close)\(")
    assert len(calls) > 3
    assert [call for call in calls if "tenant=" not in call and not of_a_digest_or_record.match(call)] == []


@pytest.mark.parametrize("role", [*Role, None])
def test_every_route_asks_for_its_role(house: House, role: Role | None) -> None:
    roles = frozenset() if role is None else frozenset({role})
    for (method, path), allowed in EXPECTED.items():
        reply = ask(house, method, path, roles=roles)
        assert (reply.status != 403) is (role in allowed), (method, path, reply.status)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/access/keys", b""),
        ("/v2/access/keys", b"[]"),
        ("/v2/access/keys", b'{"roles":[]}'),
        ("/v2/access/keys", b'{"roles":["root"]}'),
        ("/v2/access/keys", b'{"roles":"infer"}'),
        ("/v2/access/keys", b'{"roles":["infer"],"not_after":"soon"}'),
        ("/v2/access/keys", b'{"roles":["infer"],"tenant":"beta"}'),
        ("/v2/access/revocations", b"{}"),
        ("/v2/access/revocations", b'{"jti":"a","sub":"b"}'),
        ("/v2/access/revocations", b'{"sub":""}'),
        ("/v2/access/revocations", b'{"issued_before":"now"}'),
        ("/v2/repository/models/m/sharing", b'{"run":["*"]}'),
        ("/v2/repository/models/m/sharing", b'{"run":"*","visible":[]}'),
        ("/v2/repository/models/m/sharing", b'{"run":["a b"],"visible":[]}'),
        ("/v2/repository/models/m/sharing", b'{"run":[1],"visible":[]}'),
    ],
)
def test_management_refuses_what_it_does_not_know(house: House, path: str, body: bytes) -> None:
    reply = ask(house, "POST", path, body)
    assert (reply.status, members(reply)["code"]) == (400, "invalid_input")
    assert members(ask(house, "GET", "/v2/access/keys"))["keys"][-1]["created"] is None
    assert members(ask(house, "GET", "/v2/access/revocations"))["revocations"] == []


def test_revocations_are_listed_once_each_and_lifted(house: House) -> None:
    made = [ask(house, "POST", "/v2/access/revocations", b'{"sub":"dr-who"}') for _ in range(2)]
    assert members(made[0]) == members(made[1])
    listed = members(ask(house, "GET", "/v2/access/revocations"))["revocations"]
    assert listed == [members(made[0])]
    assert ask(house, "DELETE", f"/v2/access/revocations/{listed[0]['id']}").status == 200
    assert ask(house, "DELETE", f"/v2/access/revocations/{listed[0]['id']}").status == 404


def test_sharing_is_of_models_that_are_there(house: House) -> None:
    assert ask(house, "GET", "/v2/repository/models/m/sharing").status == 404
    assert ask(house, "POST", "/v2/repository/models/m/sharing", b'{"run":["*"],"visible":[]}').status == 404
