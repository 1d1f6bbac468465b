"""Strict JSON and the forms of what is read, written a second time from the specification's text (no `blindai` here).

A form is a dict (exactly those members), a list (members of one form), a function (a test), or a value (equality).
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Refused(Exception):  # noqa: N818  # what happened, in the words of the specification
    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def require(fact: object, kind: str) -> None:
    if not fact:
        raise Refused(kind)


def unbase64url(text: object) -> bytes:
    if not isinstance(text, str) or not re.fullmatch("[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise ValueError("not base64url")
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_")
    if base64.b64encode(data, altchars=b"-_").decode().strip("=") != text:
        raise ValueError("not canonical")
    return data


# --- strict JSON -------------------------------------------------------------------------------------------------
def strict_json(data: bytes, limit: int) -> Any:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a name twice")
        return dict(pairs)

    def number(text: str) -> int:
        if not re.fullmatch("0|-?[1-9][0-9]{0,15}", text) or abs(int(text)) >= 2**53:
            raise ValueError("not an exact integer")
        return int(text)

    if len(data) > limit or data[:3] == b"\xef\xbb\xbf":
        raise ValueError("too long, or a byte-order mark")
    value = json.loads(
        data.decode(), object_pairs_hook=members, parse_int=number, parse_float=number, parse_constant=number
    )
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8
    if _depth(value) > 8:
        raise ValueError("too deep")
    return value


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)


def compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fits(value: Any, form: Any) -> bool:
    if isinstance(form, dict):
        return (
            isinstance(value, dict) and set(value) == set(form) and all(fits(value[name], form[name]) for name in form)
        )
    if isinstance(form, list):
        return isinstance(value, list) and len(value) <= 64 and all(fits(member, form[0]) for member in value)
    if callable(form):
        return bool(form(value))
    return type(value) is type(form) and bool(value == form)


def raw(size: int) -> Callable[[Any], bool]:
    return lambda value: len(unbase64url(value)) == size


def matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value))


def number(value: Any) -> bool:
    return type(value) is int and value >= 0


def flag(value: Any) -> bool:
    return type(value) is bool


def line(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= 256 and value.isprintable()


def pairs(name: Callable[[Any], bool], content: Callable[[Any], bool], most: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and len(value) <= most and all(name(k) and content(v) for k, v in value.items())
    )


def optional(form: Any) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value, form)


RUNTIME = {
    **dict.fromkeys(("telemetry", "batching", "upload_allowed", "require_sealed"), flag),
    **dict.fromkeys(("log_level", "isolation", "authentication", "sealing"), line),
    "models": [line],
    "execution_providers": [line],
    "limits": dict.fromkeys(("max_body_bytes", "max_model_bytes", "max_models", "run_timeout_s"), number),
    "configuration": raw(32),
}
KEYSET = {
    "version": 1,
    "service": line,
    "operator": optional({"public_key": raw(32), "not_after": number, "signature": raw(64)}),
    "instance": raw(32),
    "kind": matches("epoch|fresh"),
    "challenge": lambda text: len(unbase64url(text)) in {0, 32},
    "not_before": number,
    "not_after": number,
    "hpke": lambda keys: fits(keys, [{"kem": 25722, "public_key": raw(1216)}]) and len(keys) == 1,
    "tls": [raw(32)],
    "receipt": {"alg": "Ed25519", "public_key": raw(32)},
    "runtime": RUNTIME,
    "software": {"name": line, "version": line, "engines": pairs(line, line, 64)},
    "simulated": flag,
}
_HEADERS = pairs(matches("[a-z0-9-]{1,64}"), matches("[\\x20-\\x7e]{0,8192}"), 32)
REQUEST_HEAD = {
    "id": raw(16),
    "method": matches("GET|POST|DELETE"),
    "path": matches("/[\\x21-\\x7e]{0,2047}"),
    "headers": _HEADERS,
    "content_type": matches("[\\x20-\\x7e]{0,8192}"),
    "padding": matches("padme|none"),
    "receipt": flag,
    "salt": raw(32),
    "session": flag,
}
RESPONSE_HEAD = {"status": lambda value: number(value) and 200 <= value < 600, "headers": _HEADERS}
SESSION_GRANT = {"lifetime_s": number, "idle_s": number}
WIRE_ERROR = dict.fromkeys(("error", "code", "hint"), lambda value: isinstance(value, str))
RECEIPT = {
    "version": 1,
    "door": matches("sealed|pinned-tls"),
    "method": line,
    "path": matches("[^\\x00-\\x1f\\x7f]{1,2048}"),
    "complete": flag,
    "model": optional(dict.fromkeys(("name", "version", "digest", "engine", "precision"), line)),
    "padding": matches("padme|none"),
    "request_id": raw(16),
    **dict.fromkeys(("keyset_id", "runtime_policy", "request", "response"), raw(32)),
    **dict.fromkeys(("status", "start_ms", "end_ms"), number),
}
MANIFEST = {
    "files": [
        {
            "path": matches("[A-Za-z0-9_][A-Za-z0-9._-]{0,254}"),
            "sha256": matches("[0-9a-f]{64}"),
            "size": number,
        }
    ],
    "session": {"graph_optimization": matches("all|extended|basic|disabled"), "provider": "CPUExecutionProvider"},
}


def read(data: bytes, limit: int, form: Any, kind: str, *, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """JSON of exactly that form, `extra` members optional."""
    try:
        value = strict_json(data, limit)
        optional_members = {name: test for name, test in (extra or {}).items() if name in value}
        require(fits(value, {**form, **optional_members}), kind)
    except (ValueError, TypeError):
        raise Refused(kind) from None
    found: dict[str, Any] = value
    return found
