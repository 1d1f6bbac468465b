"""Who asks: the principal of a request, its tenant and its roles.

Leaves out: credentials (open access only, so far) and who may run which model.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from blindai.errors import ForbiddenError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever a request's credential stands for.

    Attributes:
        tenant: whose models it sees; `public` under open access.
        roles: what it may do.
        share: whose requests may meet in one process and one batch: the tenant, under open access the client.
    """

    tenant: str
    roles: frozenset[Role]
    share: str = field(repr=False)

    def require(self, sufficient: frozenset[Role]) -> None:
        """Refuse a principal that has none of these roles.

        Raises:
            ForbiddenError: so it is.
        """
        if self.roles.isdisjoint(sufficient):
            raise ForbiddenError(
                "the credential does not allow this",
                hint=f"it takes the role {' or '.join(role.value for role in Role if role in sufficient)}",
            )


def open_principal(client_token: str) -> Principal:
    """Open access: one tenant with every role, its clients kept apart by a random token of their own."""
    share = f"{OPEN_TENANT}/{client_token}" if client_token else OPEN_TENANT
    return Principal(tenant=OPEN_TENANT, roles=frozenset(Role), share=share)
