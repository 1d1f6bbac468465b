"""Signed tokens: a compact JWS of an issuer that the access file names (RFC 7515, 7519, 8725).

Algorithm and key come from the configuration, never from the token. Every check is made after the signature's, with an
unknown issuer as with a known one, and every failure is one ValueError: its cause is nobody's business.
Leaves out: revocation (revocations.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc.jwa import EdDSAAlgorithm
from joserfc.jwk import OKPKey

from blindai.server.access import OPEN_TENANT, Role
from blindai.wire import base64url_decode, bounded_list, printable, require_members, strict_json, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHMS = ("EdDSA", "Ed25519")  # two names of one algorithm: RFC 8037's, and RFC 9864's
TYPES = ("JWT", "at+jwt")
MAX_TOKEN_BYTES = 8000
MAX_LIFE_S = 24 * 3600
LEEWAY_S = 60
_HEADER = frozenset({"alg", "typ"})
_MAX_HEADER_BYTES = 1024
_EDDSA = EdDSAAlgorithm()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Who may sign tokens for a tenant.

    Attributes:
        name: what a token's `iss` must be.
        algorithm: what its header's `alg` must be.
        public_key: Ed25519, 32 bytes.
        roles_max: roles beyond these are taken away from a token.
    """

    name: str
    tenant: str
    algorithm: str
    public_key: bytes
    roles_max: frozenset[Role]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What an authentic token says; times in Unix seconds."""

    tenant: str
    subject: str = field(repr=False)
    roles: frozenset[Role]
    token_id: str = field(repr=False)
    issued_s: int
    expires_s: int


# Whoever signs as nobody known: its private half is gone, and verifying takes as long as for anybody.
_NOBODY = Issuer(
    name="",
    tenant=OPEN_TENANT,
    algorithm=ALGORITHMS[0],
    public_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw(),
    roles_max=frozenset(),
)


def read_token(token: str, issuers: Mapping[str, Issuer], *, audience: str, now_s: float) -> Token:
    """Verify a token and read it.

    Raises:
        ValueError: anything about it is not as it must be.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError("too long")
    encoded_header, encoded_payload, encoded_signature = token.split(".")
    header = strict_json(base64url_decode(encoded_header), max_bytes=_MAX_HEADER_BYTES)
    claims = strict_json(base64url_decode(encoded_payload), max_bytes=MAX_TOKEN_BYTES)
    if not isinstance(claims, dict):
        raise ValueError("no claims")  # noqa: TRY004  # callers wrap one exception type
    issuer = issuers.get(str(claims.get("iss")), _NOBODY)
    key = Ed25519PublicKey.from_public_bytes(issuer.public_key)
    signed = f"{encoded_header}.{encoded_payload}".encode("ascii")
    if not _EDDSA.verify(signed, base64url_decode(encoded_signature), OKPKey(key, key)):
        raise ValueError("not this issuer's signature")
    _check_header(header, issuer)
    return _read_claims(claims, issuer, audience=audience, now_s=now_s)


def _check_header(header: object, issuer: Issuer) -> None:
    """Nothing but these members: neither `crit` nor a key of the sender's choice (RFC 8725 §3)."""
    members = require_members(header, _HEADER, frozenset({"kid"}))
    if members["alg"] != issuer.algorithm or members["typ"] not in TYPES:
        raise ValueError("another algorithm or type")


def _read_claims(claims: dict[str, Any], issuer: Issuer, *, audience: str, now_s: float) -> Token:
    """Claims that are not named here say nothing to us (RFC 7519 §4)."""
    issued_s, expires_s = whole_number(claims.get("iat")), whole_number(claims.get("exp"))
    begins_s = max(issued_s, whole_number(claims.get("nbf", issued_s)))
    if not begins_s - LEEWAY_S <= now_s < expires_s or expires_s - issued_s > MAX_LIFE_S:
        raise ValueError("not now, or too long")
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise ValueError("for somebody else")
    if claims.get("tenant", issuer.tenant) != issuer.tenant:
        raise ValueError("of another tenant")
    return Token(
        tenant=issuer.tenant,
        subject=printable(claims.get("sub")),
        roles=frozenset(Role(role) for role in bounded_list(claims.get("roles"))) & issuer.roles_max,
        token_id=printable(claims["jti"]) if "jti" in claims else "",
        issued_s=issued_s,
        expires_s=expires_s,
    )
