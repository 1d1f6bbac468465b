"""Management at run time: a tenant's keys, its revoked tokens, and with whom its models are shared.

Each handler acts on the caller's own tenant and nothing else; roles are checked in dispatch.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blindai.bundle import TENANT_NAME
from blindai.errors import InvalidInputError
from blindai.server.access import Role, role_names
from blindai.server.calls import Call, Reply
from blindai.server.revocations import RevokedBy
from blindai.server.sharing import EVERYBODY, Share
from blindai.wire import bounded_list, compact_json, printable, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from blindai.server.authentication import ListedKey
    from blindai.server.dispatch import Service
    from blindai.server.revocations import Revocation
    from blindai.server.routes import Target

_MAX_BODY_BYTES = 64 * 1024
_JSON = (("content-type", "application/json"),)


async def list_keys(service: Service, call: Call, _target: Target) -> Reply:
    """The tenant's keys: ids, roles and days, never a secret."""
    service.access.require_managed()
    await call.read_no_body()
    return _reply({"keys": [_key_members(listed) for listed in service.access.keys(call.principal.tenant)]})


async def create_key(service: Service, call: Call, _target: Target) -> Reply:
    """A new key of the tenant; its text is in this answer and nowhere else."""
    service.access.require_managed()
    members = await _read(service, call, frozenset({"roles"}), frozenset({"not_after"}))
    try:
        roles = frozenset(Role(role) for role in bounded_list(members["roles"]))
        not_after_s = whole_number(members["not_after"]) if "not_after" in members else None
    except ValueError:
        raise InvalidInputError(
            f"`roles` is a list of {', '.join(Role)}; `not_after`, if given, is in Unix seconds"
        ) from None
    if not roles:
        raise InvalidInputError("a key without a role can do nothing")
    key, text = service.access.create_key(call.principal.tenant, roles, not_after_s)
    return _reply({"id": key.id, "key": text, "roles": role_names(key.roles), "not_after": not_after_s})


async def revoke_key(service: Service, call: Call, target: Target) -> Reply:
    """Revoke one of the tenant's keys."""
    service.access.require_managed()
    await call.read_no_body()
    service.access.revoke_key(call.principal.tenant, target.id)
    return _reply({"revoked": target.id})


async def list_revocations(service: Service, call: Call, _target: Target) -> Reply:
    """The tenant's revocations of tokens."""
    service.access.require_managed()
    await call.read_no_body()
    entries = service.access.revocations.of(call.principal.tenant)
    return _reply({"revocations": [_revocation_members(entry) for entry in entries]})


async def revoke_tokens(service: Service, call: Call, _target: Target) -> Reply:
    """Revoke tokens of the tenant's issuers: exactly one of `jti`, `sub` and `issued_before`."""
    service.access.require_managed()
    members = await _read(service, call, frozenset(), frozenset(RevokedBy))
    try:
        ((name, given),) = members.items()
        by = RevokedBy(name)
        value = whole_number(given) if by is RevokedBy.ISSUED_BEFORE else printable(given)
    except ValueError:
        raise InvalidInputError("exactly one of `jti` and `sub`, a text, or `issued_before`, Unix seconds") from None
    return _reply(_revocation_members(service.access.revocations.add(call.principal.tenant, by, value)))


async def lift_revocation(service: Service, call: Call, target: Target) -> Reply:
    """Take a revocation back."""
    service.access.require_managed()
    await call.read_no_body()
    service.access.revocations.lift(call.principal.tenant, target.id)
    return _reply({"lifted": target.id})


async def read_sharing(service: Service, call: Call, target: Target) -> Reply:
    """With whom a model of the tenant is shared."""
    service.access.require_managed()
    await call.read_no_body()
    models = service.models_of(call.principal)
    return _reply(_share_members(models.shared_with(models.resolve_own(target.model).name)))


async def decide_sharing(service: Service, call: Call, target: Target) -> Reply:
    """Say anew with whom a model of the tenant is shared; who is not named any more is shut out at once."""
    service.access.require_managed()
    members = await _read(service, call, frozenset({"run", "visible"}))
    share = Share(run=_tenants(members["run"]), visible=_tenants(members["visible"]))
    models = service.models_of(call.principal)
    name = models.resolve_own(target.model).name
    await service.changes.run(models.share, name, share)
    return _reply(_share_members(share))


def _tenants(value: object) -> frozenset[str]:
    """Whether such tenants exist is not looked at, since the answer would tell."""
    try:
        names = bounded_list(value)
    except ValueError as error:
        raise InvalidInputError(str(error)) from None
    if not all(name == EVERYBODY or (isinstance(name, str) and TENANT_NAME.match(name)) for name in names):
        raise InvalidInputError(f"`run` and `visible` are lists of tenants, or [{EVERYBODY!r}] for all")
    return frozenset(names)


async def _read(
    service: Service, call: Call, required: frozenset[str], optional: frozenset[str] = frozenset()
) -> dict[str, Any]:
    with service.bodies.share() as share:
        body = await call.read_body(_MAX_BODY_BYTES, share)
        try:
            return require_members(strict_json(bytes(body), max_bytes=_MAX_BODY_BYTES), required, optional)
        except ValueError as error:
            raise InvalidInputError(f"the body is not what this request takes: {error}") from None


def _reply(members: dict[str, Any]) -> Reply:
    return Reply(headers=_JSON, body=(compact_json(members),))


def _key_members(listed: ListedKey) -> dict[str, Any]:
    key = listed.key
    return {
        "id": key.id,
        "roles": role_names(key.roles),
        "not_after": key.not_after_s,
        "created": key.created_s,
        "last_used": listed.last_used_s,
    }


def _revocation_members(entry: Revocation) -> dict[str, Any]:
    return {"id": entry.id, "by": entry.by.value, "value": entry.value, "made": entry.made_s}


def _share_members(share: Share) -> dict[str, Any]:
    return {"run": sorted(share.run), "visible": sorted(share.visible)}
