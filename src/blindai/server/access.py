"""Who asks: the principal of a request, its tenant and its roles; values only.

Leaves out: how a credential becomes a principal (authentication.py), and whose models it sees (tenant_models.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from blindai.errors import ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN_TENANT = "public"


class Role(enum.StrEnum):
    """What a principal may do in its tenant."""

    INFER = "infer"
    UPLOAD = "upload"
    ADMIN = "admin"


# What suffices for a route: one of these roles. An admin may do everything in its tenant.
ANY_ROLE = frozenset(Role)
TO_INFER = frozenset({Role.INFER, Role.ADMIN})
TO_UPLOAD = frozenset({Role.UPLOAD, Role.ADMIN})
TO_ADMINISTER = frozenset({Role.ADMIN})


class CredentialKind(enum.StrEnum):
    """How a principal was authenticated."""

    KEY = "key"
    TOKEN = "token"  # noqa: S105  # a kind, not a credential


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a principal showed, as far as it can end or be revoked; never the secret itself.

    Attributes:
        id: an API key's id, or a token's `jti` (empty without one).
        issued_s: when a token was issued, in Unix seconds; 0 for a key.
        expires_s: when it ends, in Unix seconds, or None.
    """

    kind: CredentialKind
    id: str = field(repr=False)
    issued_s: int = 0
    expires_s: int | None = None


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever a request's credential stands for.

    Attributes:
        tenant: whose models it sees; `public` under open access.
        roles: what it may do.
        share: whose requests may meet in one process and one batch: the tenant, under open access the client.
        subject: an API key's id, or a token's `sub`; empty under open access.
        credential: what it showed; None under open access.
    """

    tenant: str
    roles: frozenset[Role]
    share: str
    subject: str = ""
    credential: Credential | None = None

    def __repr__(self) -> str:
        """Without what tells one of a tenant's users from another."""
        return f"Principal(tenant={self.tenant!r}, roles={role_names(self.roles)})"

    @property
    def counted_as(self) -> str:
        """By what its sessions are counted: a fresh token of the same subject is nobody new."""
        if self.credential is None:
            return self.share
        return f"{self.tenant}/{self.credential.kind}/{self.subject}"

    def require(self, sufficient: frozenset[Role]) -> None:
        """Refuse a principal that has none of these roles.

        Raises:
            ForbiddenError: so it is.
        """
        if self.roles.isdisjoint(sufficient):
            raise ForbiddenError(
                "the credential does not allow this", hint=f"it takes the role {' or '.join(_ordered(sufficient))}"
            )


def role_names(roles: Iterable[Role]) -> list[str]:
    """As they are shown and stored: in the order of their power."""
    return _ordered(frozenset(roles))


def open_principal(client_token: str) -> Principal:
    """Open access: one tenant with every role, its clients kept apart by a random token of their own."""
    share = f"{OPEN_TENANT}/{client_token}" if client_token else OPEN_TENANT
    return Principal(tenant=OPEN_TENANT, roles=ANY_ROLE, share=share)


def _ordered(roles: frozenset[Role]) -> list[str]:
    return [role.value for role in Role if role in roles]
