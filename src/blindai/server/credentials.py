"""API keys: their form, how one is drawn, and the hash by which the server knows it.

    blindai_<id>_<secret: 32 random bytes in base64url>

The server keeps SHA-256 of the whole text. A slow hash (scrypt, argon2) guards secrets that people choose, since those
can be guessed; of 256 random bits nobody guesses any, and a slow hash would only be a way to load the server.
Leaves out: which keys there are (access_file.py, authentication.py).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.server.access import Role

KEY_PREFIX = "blindai_"
SECRET_BYTES = 32
KEY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_DRAWN_ID_BYTES = 6
_KEY = re.compile(r"blindai_([a-z0-9][a-z0-9-]{0,31})_[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What the server knows of a key.

    Attributes:
        id: tells which key it is; not secret, and one of a kind in the server.
        sha256: of the whole key.
        not_after_s: when it ends, in Unix seconds, or None.
        created_s: when it was made at run time; None for a key of the access file.
    """

    id: str
    tenant: str
    sha256: bytes = field(repr=False)
    roles: frozenset[Role]
    not_after_s: int | None = None
    created_s: int | None = None

    def require_secret(self, key: str) -> None:
        """Whether `key` is this key, in a time that does not depend on where they differ.

        Raises:
            ValueError: it is not.
        """
        if not hmac.compare_digest(key_digest(key), self.sha256):
            raise ValueError("another key")


def draw_key(random: Callable[[int], bytes], key_id: str | None = None) -> tuple[str, str]:
    """A new key: its id and the whole key, which is shown once and kept nowhere."""
    chosen = key_id or random(_DRAWN_ID_BYTES).hex()
    return chosen, f"{KEY_PREFIX}{chosen}_{base64url_encode(random(SECRET_BYTES))}"


def key_digest(key: str) -> bytes:
    """What the access file and the server keep; `printf %s KEY | sha256sum` finds the same."""
    return hashlib.sha256(key.encode()).digest()


def key_id_of(key: str) -> str:
    """The id in a key.

    Raises:
        ValueError: this has not the form of a key.
    """
    found = _KEY.match(key)
    if not found:
        raise ValueError("not an API key")
    return found[1]
