"""Tokens that no longer count although they have not ended: by `jti`, by `sub`, or issued before a time.

In memory, as everything that is managed at run time: a restart forgets it, and ends every session too.
Leaves out: API keys, which are removed instead (authentication.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import ModelNotFoundError, OverloadedError
from blindai.server.access import CredentialKind
from blindai.server.tokens import LEEWAY_S, MAX_LIFE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.server.access import Principal

MAX_REVOCATIONS = 4096
_ID_BYTES = 6


class RevokedBy(enum.StrEnum):
    """What of a token is revoked."""

    TOKEN_ID = "jti"  # noqa: S105  # a claim's name
    SUBJECT = "sub"
    ISSUED_BEFORE = "issued_before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One entry; `value` is a text, or Unix seconds for `issued_before`."""

    id: str
    by: RevokedBy
    value: str | int
    made_s: int


class Revocations:
    """The revoked tokens of every tenant; used from the event loop only."""

    def __init__(self, *, wall: Callable[[], float], random: Callable[[int], bytes]) -> None:
        self._wall = wall
        self._random = random
        self._entries: dict[str, dict[tuple[RevokedBy, str | int], Revocation]] = {}

    def add(self, tenant: str, by: RevokedBy, value: str | int) -> Revocation:
        """Revoke; effective for the next request.

        Raises:
            OverloadedError: the tenant has too many.
        """
        entries = self._entries.setdefault(tenant, {})
        known = entries.get((by, value))
        if known:
            return known
        self._drop_ended(entries)
        if len(entries) >= MAX_REVOCATIONS:
            raise OverloadedError(
                f"a tenant has at most {MAX_REVOCATIONS} revocations", hint="revoke everything issued before now"
            )
        made = Revocation(id=self._random(_ID_BYTES).hex(), by=by, value=value, made_s=int(self._wall()))
        entries[by, value] = made
        return made

    def of(self, tenant: str) -> tuple[Revocation, ...]:
        """A tenant's revocations, the newest at the end."""
        return tuple(self._entries.get(tenant, {}).values())

    def lift(self, tenant: str, revocation_id: str) -> None:
        """Take one back.

        Raises:
            ModelNotFoundError: the tenant has none of that id.
        """
        entries = self._entries.get(tenant, {})
        for key, entry in entries.items():
            if entry.id == revocation_id:
                del entries[key]
                return
        raise ModelNotFoundError("there is no such revocation")

    def require_none(self, principal: Principal) -> None:
        """Whether the token of a principal still counts.

        Raises:
            ValueError: it is revoked.
        """
        credential, entries = principal.credential, self._entries.get(principal.tenant)
        if not entries or credential is None or credential.kind is not CredentialKind.TOKEN:
            return
        if (RevokedBy.SUBJECT, principal.subject) in entries or (RevokedBy.TOKEN_ID, credential.id) in entries:
            raise ValueError("revoked")
        if any(by is RevokedBy.ISSUED_BEFORE and credential.issued_s < int(value) for by, value in entries):
            raise ValueError("revoked")

    def _drop_ended(self, entries: dict[tuple[RevokedBy, str | int], Revocation]) -> None:
        """Tokens live a day, so what only concerns older ones is over; a revoked subject stays so."""
        oldest_s = self._wall() - MAX_LIFE_S - LEEWAY_S
        for key, entry in list(entries.items()):
            concerns_s = int(entry.value) if entry.by is RevokedBy.ISSUED_BEFORE else entry.made_s
            if entry.by is not RevokedBy.SUBJECT and concerns_s < oldest_s:
                del entries[key]
