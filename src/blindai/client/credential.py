"""What a client shows to be let in: an API key, or a token that may be drawn anew for each use.

It goes into sealed heads, or inside TLS to the attested key, and is in no message, log or `repr` of this project.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

_CREDENTIAL = re.compile(r"[\x21-\x7e]{1,8000}\Z")


def credential_source(api_key: str | None, token: str | Callable[[], str] | None) -> Callable[[], str] | None:
    """Where the credential comes from, or None for a server with open access.

    Raises:
        InvalidInputError: both are given, or what is given cannot be one.
    """
    if api_key is not None and token is not None:
        raise InvalidInputError("an API key and a token exclude each other", hint="give one of api_key=… and token=…")
    given = token if api_key is None else api_key
    if given is None:
        return None
    if callable(given):
        return lambda: _checked(given())
    text = _checked(given)
    return lambda: text


def _checked(text: object) -> str:
    """Said without the text, whatever it is."""
    if not isinstance(text, str) or not _CREDENTIAL.match(text):
        raise InvalidInputError(
            "this cannot be an API key or token: 1 to 8000 visible ASCII characters",
            hint="a key is one word that begins with blindai_; look for a line end or a space around it",
        )
    return text
