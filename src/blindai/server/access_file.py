"""The access file: tenants, the hashes of their keys, their token issuers and quotas (docs/guides/access.md).

Read once, at start; the SHA-256 of its bytes stands in the configuration digest, so evidence vouches for it and names
nobody. Unknown members are refused, each complaint names its field, and nothing secret belongs here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.bundle import TENANT_NAME
from blindai.errors import InvalidSettingsError
from blindai.server.access import OPEN_TENANT, Role
from blindai.server.credentials import KEY_ID, ApiKey
from blindai.server.quotas import Quota
from blindai.server.tokens import ALGORITHMS, Issuer
from blindai.wire import JSON_INTEGER_LIMIT, exact_bytes, printable

if TYPE_CHECKING:
    from pathlib import Path

_PUBLIC_KEY_BYTES = 32
_MAX_FILE_BYTES = 16 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant as the file describes it."""

    name: str
    keys: tuple[ApiKey, ...]
    issuers: tuple[Issuer, ...]
    quota: Quota


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFile:
    """A whole access file. `sha256` is of its bytes."""

    tenants: tuple[Tenant, ...]
    sha256: bytes

    @property
    def pin(self) -> str:
        """What stands in the configuration digest instead of the file's path."""
        return f"sha256:{self.sha256.hex()}"


def read_access_file(path: Path) -> AccessFile:
    """Read and check an access file.

    Raises:
        InvalidSettingsError: it cannot be read, or is not one; names the field.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidSettingsError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidSettingsError(f"{path} has more than {_MAX_FILE_BYTES} bytes")
    return parse_access_file(data, source=str(path))


def parse_access_file(data: bytes, *, source: str) -> AccessFile:
    """Check the bytes of an access file; raises as `read_access_file` does."""
    try:
        members = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidSettingsError(f"{source}: not TOML: {error}") from None
    top = _Table(source=source, path="", members=members)
    top.require("tenants")
    tenants = tuple(_tenant(name, table) for name, table in top.table("tenants").tables())
    if not tenants:
        raise top.error("tenants", "must name at least one tenant")
    _require_unique(source, "key id", [key.id for tenant in tenants for key in tenant.keys])
    _require_unique(source, "issuer", [issuer.name for tenant in tenants for issuer in tenant.issuers])
    return AccessFile(tenants=tenants, sha256=hashlib.sha256(data).digest())


def _tenant(name: str, table: _Table) -> Tenant:
    if not TENANT_NAME.match(name) or name == OPEN_TENANT:
        raise table.error("", f"is no tenant's name: 1 to 63 of a-z, 0-9 and '-', and not {OPEN_TENANT!r}")
    table.require(optional=("keys", "issuers", "quotas"))
    return Tenant(
        name=name,
        keys=tuple(_key(name, entry) for entry in table.list_of_tables("keys")),
        issuers=tuple(_issuer(name, entry) for entry in table.list_of_tables("issuers")),
        quota=_quota(table.table("quotas")) if "quotas" in table.members else Quota(),
    )


def _key(tenant: str, table: _Table) -> ApiKey:
    table.require("id", "sha256", "roles", optional=("not_after",))
    digest = table.text("sha256")
    if not _SHA256.match(digest):
        raise table.error("sha256", "must be 64 lower-case hexadecimal digits; `blindai access new-key` prints them")
    key_id = table.text("id")
    if not KEY_ID.match(key_id):
        raise table.error("id", "must be 1 to 32 of a-z, 0-9 and '-'")
    return ApiKey(
        id=key_id,
        tenant=tenant,
        sha256=bytes.fromhex(digest),
        roles=table.roles("roles"),
        not_after_s=table.time("not_after") if "not_after" in table.members else None,
    )


def _issuer(tenant: str, table: _Table) -> Issuer:
    table.require("name", "alg", "public_key", "roles_max")
    algorithm = table.text("alg")
    if algorithm not in ALGORITHMS:
        raise table.error("alg", f"must be one of {', '.join(ALGORITHMS)}")
    try:
        public_key = exact_bytes(table.text("public_key"), _PUBLIC_KEY_BYTES)
    except ValueError:
        raise table.error("public_key", "must be an Ed25519 key: 32 bytes in unpadded base64url") from None
    return Issuer(
        name=table.text("name"),
        tenant=tenant,
        algorithm=algorithm,
        public_key=public_key,
        roles_max=table.roles("roles_max"),
    )


def _quota(table: _Table) -> Quota:
    names = tuple(Quota.__dataclass_fields__)
    table.require(optional=names)
    return Quota(**{name: table.number(name) for name in names if name in table.members})


def _require_unique(source: str, what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidSettingsError(f"{source}: the {what} {name!r} is used twice, and must be one of a kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """One table of the file, which knows where it stands."""

    source: str
    path: str
    members: dict[str, Any] = field(repr=False)

    def error(self, key: str, problem: str) -> InvalidSettingsError:
        return InvalidSettingsError(f"{self.source}: `{self._under(key)}` {problem}")

    def require(self, *required: str, optional: tuple[str, ...] = ()) -> None:
        for key in self.members:
            if key not in required + optional:
                raise self.error(key, f"is not known here; known are {', '.join(required + optional)}")
        for key in required:
            if key not in self.members:
                raise self.error(key, "is missing")

    def table(self, key: str) -> _Table:
        return self._child(self._under(key), self.members[key])

    def tables(self) -> list[tuple[str, _Table]]:
        return [(key, self.table(key)) for key in self.members]

    def list_of_tables(self, key: str) -> list[_Table]:
        entries = self.members.get(key, [])
        if not isinstance(entries, list):
            raise self.error(key, "must be a list of tables")
        return [self._child(f"{self._under(key)}[{index}]", entry) for index, entry in enumerate(entries)]

    def text(self, key: str) -> str:
        try:
            return printable(self.members[key])
        except ValueError as error:
            raise self.error(key, str(error)) from None

    def number(self, key: str) -> int:
        value = self.members[key]
        if type(value) is not int or not 0 < value <= JSON_INTEGER_LIMIT:
            raise self.error(key, "must be a whole number from 1 to 2^53-1")
        return value

    def time(self, key: str) -> int:
        value = self.members[key]
        if not isinstance(value, dt.datetime) or value.tzinfo is None:
            raise self.error(key, "must be a time with its zone, for example 2027-01-31T00:00:00Z")
        return int(value.timestamp())

    def roles(self, key: str) -> frozenset[Role]:
        values = self.members[key]
        if not isinstance(values, list) or not values or not all(value in tuple(Role) for value in values):
            raise self.error(key, f"must be a list of at least one of {', '.join(Role)}")
        return frozenset(Role(value) for value in values)

    def _under(self, key: str) -> str:
        return ".".join(filter(None, (self.path, key)))

    def _child(self, path: str, value: object) -> _Table:
        if not isinstance(value, dict):
            raise InvalidSettingsError(f"{self.source}: `{path}` must be a table")
        return _Table(source=self.source, path=path, members=value)
