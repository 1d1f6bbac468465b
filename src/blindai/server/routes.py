"""From a request's path to what handles it: `Route`, `Target`, and how paths are read.

A path is decoded once, segment by segment; what would hide a slash or a control character is no path here.
Leaves out: the table itself (`dispatch`), and who may come in (`access`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.server.access import Role
    from blindai.server.calls import Call, Reply
    from blindai.server.dispatch import Service

    Handler = Callable[["Service", Call, "Target"], Awaitable[Reply]]
    Found = tuple[tuple["Route", "Target"], ...]

_PLACEHOLDER = re.compile(r"\\{(\w+)\\}")
_KEPT_PATH_CHARACTERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a path names; empty is what it does not name.

    Attributes:
        model: a name, `name@sha256:…`, or `@last`.
        version: of the model.
        id: of a key or a revocation.
    """

    model: str = ""
    version: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        method: GET stands for HEAD too.
        path: with `{model}`, `{version}` and `{id}` for segments that the request chooses.
        handler: what answers.
        roles: of which one suffices.
    """

    method: str
    path: str
    handler: Handler
    roles: frozenset[Role]

    @property
    def pattern(self) -> re.Pattern[str]:
        """What matches the path; the regular expression module keeps it compiled."""
        return re.compile(_PLACEHOLDER.sub(r"(?P<\1>[^/]+)", re.escape(self.path)))


class RouteTable:
    """All routes; of two that fit a path and a method, the first counts."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._patterns = tuple((route.pattern, route) for route in routes)
        self._kept = functools.lru_cache(maxsize=1024)(self._look_up)

    def at(self, path: str) -> Found:
        """The routes of a path as it stands in the request; none if it is no path of this server."""
        return self._kept(path) if len(path) <= _KEPT_PATH_CHARACTERS else self._look_up(path)

    def _look_up(self, raw: str) -> Found:
        path = decoded(raw)
        if path is None:
            return ()
        matches = ((route, pattern.fullmatch(path)) for pattern, route in self._patterns)
        return tuple((route, Target(**match.groupdict())) for route, match in matches if match)


def decoded(raw: str) -> str | None:
    """A path decoded once; `None` if it hides a slash, or what it spells is not printable text."""
    if "%" in raw:
        if "%2f" in raw.lower() or "%5c" in raw.lower():
            return None
        try:
            raw = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return None
    return raw if raw.isprintable() else None


def methods_of(found: Found) -> str:
    """For the header `allow` (RFC 9110 §10.2.1)."""
    methods = {route.method for route, _ in found}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
