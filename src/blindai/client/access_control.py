"""`client.access`: a tenant's keys, revoked tokens and shared models on a running server (docs/guides/access.md).

The calls are written once, as flows; `AccessControl` runs them for `Client`, `AsyncAccessControl` for `AsyncClient`.
Management is never repeated silently. Leaves out: what the server makes of it.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from blindai.client.exchange_flow import SealedRequest, exchange
from blindai.errors import InternalError, InvalidInputError
from blindai.wire import compact_json, printable, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from blindai.client.attest_flow import Flow
    from blindai.client.connection import Connection

T = TypeVar("T")
KEYS_PATH = "/v2/access/keys"
REVOCATIONS_PATH = "/v2/access/revocations"
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """A key as the server lists it.

    Attributes:
        created: None for a key of the server's access file.
        last_used: the day, or None if it was not used since the server started.
    """

    id: str
    roles: tuple[str, ...]
    not_after: dt.datetime | None
    created: dt.datetime | None
    last_used: dt.date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was just made. `key` is told this once; keep it where secrets are kept."""

    id: str
    roles: tuple[str, ...]
    key: str = field(repr=False)


class AccessControl:
    """What an admin (and, for `share`, an uploader) does; reached as `client.access`."""

    def __init__(self, connection: Connection, run: Callable[[Flow[Any]], Any]) -> None:
        self._connection = connection
        self._run = run

    def keys(self) -> tuple[AccessKey, ...]:
        """The tenant's keys."""
        listed: tuple[AccessKey, ...] = self._run(_keys(self._connection))
        return listed

    def create_key(self, roles: Sequence[str] = ("infer",), *, not_after: dt.datetime | None = None) -> NewKey:
        """Make a key for the tenant; it counts at once, until revoked, ended, or the server stops.

        Raises:
            InvalidInputError: no such role, or a time without its zone.
        """
        made: NewKey = self._run(_create_key(self._connection, roles, not_after))
        return made

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key: the next request with it is refused, in a session too.

        Raises:
            ModelNotFoundError: the tenant has no such key.
        """
        self._run(_revoke_key(self._connection, key_id))

    def revoke_tokens(
        self, *, jti: str | None = None, sub: str | None = None, issued_before: dt.datetime | None = None
    ) -> str:
        """Revoke one token, all of a subject, or all that are older than a time; returns what `lift` takes.

        Raises:
            InvalidInputError: not exactly one of the three.
        """
        revoked: str = self._run(_revoke_tokens(self._connection, jti=jti, sub=sub, issued_before=issued_before))
        return revoked

    def lift(self, revocation_id: str) -> None:
        """Take a revocation of tokens back."""
        self._run(_lift(self._connection, revocation_id))

    def share(self, model: str, *, run: Sequence[str] = (), visible: Sequence[str] = ()) -> None:
        """Say with whom a model of this tenant is shared from now on; `("*",)` means everybody, nothing nobody.

        Args:
            model: its name; all its versions are meant.
            run: tenants that may run it, as `OWNER:NAME`.
            visible: tenants that find it in their list of models.
        """
        self._run(_share(self._connection, model, run, visible))


class AsyncAccessControl:
    """As `AccessControl`, awaited."""

    def __init__(self, connection: Connection, run: Callable[[Flow[Any]], Awaitable[Any]]) -> None:
        self._connection = connection
        self._run = run

    async def keys(self) -> tuple[AccessKey, ...]:
        """As `AccessControl.keys`."""
        listed: tuple[AccessKey, ...] = await self._run(_keys(self._connection))
        return listed

    async def create_key(self, roles: Sequence[str] = ("infer",), *, not_after: dt.datetime | None = None) -> NewKey:
        """As `AccessControl.create_key`."""
        made: NewKey = await self._run(_create_key(self._connection, roles, not_after))
        return made

    async def revoke_key(self, key_id: str) -> None:
        """As `AccessControl.revoke_key`."""
        await self._run(_revoke_key(self._connection, key_id))

    async def revoke_tokens(
        self, *, jti: str | None = None, sub: str | None = None, issued_before: dt.datetime | None = None
    ) -> str:
        """As `AccessControl.revoke_tokens`."""
        revoked: str = await self._run(_revoke_tokens(self._connection, jti=jti, sub=sub, issued_before=issued_before))
        return revoked

    async def lift(self, revocation_id: str) -> None:
        """As `AccessControl.lift`."""
        await self._run(_lift(self._connection, revocation_id))

    async def share(self, model: str, *, run: Sequence[str] = (), visible: Sequence[str] = ()) -> None:
        """As `AccessControl.share`."""
        await self._run(_share(self._connection, model, run, visible))


def _keys(connection: Connection) -> Flow[tuple[AccessKey, ...]]:
    answer = yield from _ask(connection, "GET", KEYS_PATH)
    try:
        return tuple(_listed(entry) for entry in require_members(answer, frozenset({"keys"}))["keys"])
    except (ValueError, TypeError):
        raise _unreadable() from None


def _create_key(connection: Connection, roles: Sequence[str], not_after: dt.datetime | None) -> Flow[NewKey]:
    members: dict[str, Any] = {"roles": list(roles)}
    if not_after is not None:
        members["not_after"] = _seconds(not_after)
    answer = yield from _ask(connection, "POST", KEYS_PATH, members)
    try:
        made = require_members(answer, frozenset({"id", "key", "roles", "not_after"}))
        return NewKey(id=printable(made["id"]), key=printable(made["key"]), roles=_texts(made["roles"]))
    except ValueError:
        raise _unreadable() from None


def _revoke_key(connection: Connection, key_id: str) -> Flow[None]:
    yield from _ask(connection, "DELETE", f"{KEYS_PATH}/{_word(key_id)}")


def _revoke_tokens(
    connection: Connection, *, jti: str | None, sub: str | None, issued_before: dt.datetime | None
) -> Flow[str]:
    given = {"jti": jti, "sub": sub, "issued_before": None if issued_before is None else _seconds(issued_before)}
    members = {name: value for name, value in given.items() if value is not None}
    if len(members) != 1:
        raise InvalidInputError("give exactly one of jti, sub and issued_before")
    answer = yield from _ask(connection, "POST", REVOCATIONS_PATH, members)
    try:
        return printable(require_members(answer, frozenset({"id", "by", "value", "made"}))["id"])
    except ValueError:
        raise _unreadable() from None


def _lift(connection: Connection, revocation_id: str) -> Flow[None]:
    yield from _ask(connection, "DELETE", f"{REVOCATIONS_PATH}/{_word(revocation_id)}")


def _share(connection: Connection, model: str, run: Sequence[str], visible: Sequence[str]) -> Flow[None]:
    members = {"run": list(run), "visible": list(visible)}
    yield from _ask(connection, "POST", f"/v2/repository/models/{_word(model)}/sharing", members)


def _ask(connection: Connection, method: str, path: str, members: dict[str, Any] | None = None) -> Flow[Any]:
    body = b"" if members is None else compact_json(members)
    request = SealedRequest(
        method=method, path=path, content_type="application/json", body=lambda: (body,), repeatable=method == "GET"
    )
    result = yield from exchange(connection, request)
    result.require_no_model()
    try:
        return strict_json(result.answer.body, max_bytes=_MAX_ANSWER_BYTES)
    except ValueError:
        raise _unreadable() from None


def _listed(entry: object) -> AccessKey:
    members = require_members(entry, frozenset({"id", "roles", "not_after", "created", "last_used"}))
    used = _time(members["last_used"])
    return AccessKey(
        id=printable(members["id"]),
        roles=_texts(members["roles"]),
        not_after=_time(members["not_after"]),
        created=_time(members["created"]),
        last_used=None if used is None else used.date(),
    )


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError("expected a list")  # noqa: TRY004  # callers wrap one exception type
    return tuple(printable(value) for value in values)


def _time(value: object) -> dt.datetime | None:
    return None if value is None else dt.datetime.fromtimestamp(whole_number(value), dt.UTC)


def _seconds(time: dt.datetime) -> int:
    if time.tzinfo is None:
        raise InvalidInputError("a time needs its zone", hint="datetime.now(datetime.UTC) has one")
    return int(time.timestamp())


def _word(text: str) -> str:
    """Part of a path: nothing that would lead elsewhere."""
    if not text.isascii() or not text.isprintable() or not text or set(text) & set("/ ?#%"):
        raise InvalidInputError(f"{text!r} cannot be such a name")
    return text


def _unreadable() -> InternalError:
    return InternalError("the server's answer cannot be read")
