"""`Access`: from a credential to a principal, and whether that principal still counts.

Every door calls `authenticate`; the sealed door asks `require_valid` at each request of a session.
Whatever is wrong with a credential, the answer has the same words, and an unknown key's takes the path of a known one.
Keys and revocations that are managed at run time live in memory and end with the process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import ForbiddenError, ModelNotFoundError, OverloadedError, UnauthenticatedError
from blindai.server.access import OPEN_TENANT, Credential, CredentialKind, Principal, Role, open_principal
from blindai.server.credentials import KEY_PREFIX, SECRET_BYTES, ApiKey, draw_key, key_digest, key_id_of
from blindai.server.quotas import NO_QUOTA
from blindai.server.revocations import Revocations
from blindai.server.tokens import read_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.server.access_file import AccessFile
    from blindai.server.quotas import Quota

MAX_KEYS_PER_TENANT = 1024
_SCHEME = "bearer "
_DAY_S = 24 * 3600


@dataclass(slots=True)
class _HeldKey:
    """A key, and the last day on which it was used (days since 1970, UTC); no finer, since that would be a trace."""

    key: ApiKey
    last_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    """A key as its tenant's admin sees it; times in Unix seconds, the last use by the day."""

    key: ApiKey
    last_used_s: int | None


class Access:
    """Who may come in; used from the event loop only. Open access unless a file is given.

    Args:
        file: the tenants; None lets everybody in as one tenant.
        service: what tokens must name as their audience.
        wall: the server's clock, in Unix seconds; the host sets it, and revocation does not depend on it.
        random: source of new keys.
    """

    def __init__(
        self,
        file: AccessFile | None,
        *,
        service: str,
        wall: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        tenants = file.tenants if file else ()
        self.is_open = file is None
        self._service = service
        self._wall = wall
        self._random = random
        self._keys = {key.id: _HeldKey(key) for tenant in tenants for key in tenant.keys}
        self._issuers = {issuer.name: issuer for tenant in tenants for issuer in tenant.issuers}
        self._quotas = {tenant.name: tenant.quota for tenant in tenants}
        self.revocations = Revocations(wall=wall, random=random)
        # Compared with where no key is meant, so that an unknown id takes the path of a known one.
        self._nobody = ApiKey(id="", tenant=OPEN_TENANT, sha256=random(SECRET_BYTES), roles=frozenset())

    def authenticate(self, authorization: str | None, client_token: str) -> Principal:
        """The principal behind a request's `authorization` (`Bearer` and a key or token).

        Args:
            authorization: the header's value, or None.
            client_token: keeps clients apart under open access, where credentials are not looked at.

        Raises:
            UnauthenticatedError: no credential, or one that does not count; never says which or why.
        """
        if self.is_open:
            return open_principal(client_token)
        try:
            principal = self._principal(_bearer(authorization))
            self.revocations.require_none(principal)
        except ValueError:
            raise _refused() from None
        return principal

    def require_valid(self, principal: Principal) -> None:
        """Whether a principal that was authenticated earlier still counts: not ended, not revoked.

        Raises:
            UnauthenticatedError: it does not.
        """
        credential = principal.credential
        if self.is_open or credential is None:
            return
        try:
            _require_not_after(credential.expires_s, self._wall())
            self._require_key(credential)
            self.revocations.require_none(principal)
        except ValueError:
            raise _refused() from None

    def seconds_left(self, principal: Principal) -> float:
        """How long a principal counts at most, if nobody revokes it."""
        expires_s = principal.credential.expires_s if principal.credential else None
        return float("inf") if expires_s is None else expires_s - self._wall()

    def quota(self, tenant: str) -> Quota:
        """What a tenant may use."""
        return self._quotas.get(tenant, NO_QUOTA)

    def require_managed(self) -> None:
        """Refuse management where there is nothing to manage.

        Raises:
            ForbiddenError: access is open.
        """
        if self.is_open:
            raise ForbiddenError("access is open here", hint="the server has no access file, so everybody may do all")

    def keys(self, tenant: str) -> tuple[ListedKey, ...]:
        """A tenant's keys, those of the file first."""
        return tuple(
            ListedKey(key=held.key, last_used_s=None if held.last_day is None else held.last_day * _DAY_S)
            for held in self._keys.values()
            if held.key.tenant == tenant
        )

    def create_key(self, tenant: str, roles: frozenset[Role], not_after_s: int | None) -> tuple[ApiKey, str]:
        """A new key of a tenant, and its text, which is kept nowhere.

        Raises:
            OverloadedError: the tenant has too many.
        """
        if len(self.keys(tenant)) >= MAX_KEYS_PER_TENANT:
            raise OverloadedError(f"a tenant has at most {MAX_KEYS_PER_TENANT} keys", hint="revoke one first")
        key_id, text = draw_key(self._random)
        if key_id in self._keys:
            raise OverloadedError("no free id was drawn", hint="try again")
        key = ApiKey(
            id=key_id,
            tenant=tenant,
            sha256=key_digest(text),
            roles=roles,
            not_after_s=not_after_s,
            created_s=int(self._wall()),
        )
        self._keys[key_id] = _HeldKey(key)
        return key, text

    def revoke_key(self, tenant: str, key_id: str) -> None:
        """Forget a key; effective for the next request, in sessions too.

        Raises:
            ModelNotFoundError: the tenant has no such key.
        """
        held = self._keys.get(key_id)
        if held is None or held.key.tenant != tenant:
            raise ModelNotFoundError("there is no such key")
        del self._keys[key_id]

    def _require_key(self, credential: Credential) -> None:
        if credential.kind is CredentialKind.KEY and credential.id not in self._keys:
            raise ValueError("revoked")

    def _principal(self, text: str) -> Principal:
        return self._by_key(text) if text.startswith(KEY_PREFIX) else self._by_token(text)

    def _by_key(self, text: str) -> Principal:
        held = self._keys.get(key_id_of(text))
        key = held.key if held else self._nobody
        key.require_secret(text)
        _require_not_after(key.not_after_s, self._wall())
        if held is None:
            raise ValueError("nobody's key")
        held.last_day = int(self._wall()) // _DAY_S
        return Principal(
            tenant=key.tenant,
            roles=key.roles,
            share=key.tenant,
            subject=key.id,
            credential=Credential(kind=CredentialKind.KEY, id=key.id, expires_s=key.not_after_s),
        )

    def _by_token(self, text: str) -> Principal:
        token = read_token(text, self._issuers, audience=self._service, now_s=self._wall())
        return Principal(
            tenant=token.tenant,
            roles=token.roles,
            share=token.tenant,
            subject=token.subject,
            credential=Credential(
                kind=CredentialKind.TOKEN, id=token.token_id, issued_s=token.issued_s, expires_s=token.expires_s
            ),
        )


def _bearer(authorization: str | None) -> str:
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise ValueError("no bearer credential")
    return authorization[len(_SCHEME) :]


def _require_not_after(not_after_s: int | None, now_s: float) -> None:
    if not_after_s is not None and now_s >= not_after_s:
        raise ValueError("ended")


def _refused() -> UnauthenticatedError:
    """One answer to every cause."""
    return UnauthenticatedError(
        "the credential is missing, not known here, or has ended",
        hint="give an API key or a token: blindai.connect(url, api_key=…), or BLINDAI_API_KEY for the command line",
    )
