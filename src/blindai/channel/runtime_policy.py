"""The attested runtime policy: what an operator can set and a data owner would care about (docs/spec/sealed.md §1).

It stands in the keyset, so evidence vouches for it and a client's policy can demand it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from typing import Any

from blindai.wire import (
    base64url_encode,
    boolean,
    bounded_list,
    compact_json,
    exact_bytes,
    label,
    length_prefixed,
    printable,
    require_members,
    whole_number,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLimits:
    """Bounds that a user may meet, in bytes, counts and seconds."""

    max_body_bytes: int
    max_model_bytes: int
    max_models: int
    run_timeout_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePolicy:
    """The attested runtime policy: what an operator can set and a data owner would care about.

    Attributes:
        isolation: what shares a process: `tenant` (one tenant's requests to one model), `model` (all requests to one
            model) or `thread` (everything).
        execution_providers: of ONNX Runtime, those that may compute, in the order in which they are asked.
        sealing: what keeps stored models: `ephemeral` (a key in memory, gone at exit).
        models: digests of the start-up models.
        configuration: SHA-256 of the whole configuration.
    """

    log_level: str
    telemetry: bool
    isolation: str
    batching: bool
    execution_providers: tuple[str, ...]
    authentication: str
    sealing: str
    upload_allowed: bool
    require_sealed: bool
    models: tuple[str, ...]
    limits: RuntimeLimits
    configuration: bytes

    def members(self) -> dict[str, Any]:
        """The object that stands in the keyset."""
        members = {name: getattr(self, name) for name in _MEMBERS}
        members["models"] = list(self.models)
        members["execution_providers"] = list(self.execution_providers)
        members["limits"] = dataclasses.asdict(self.limits)
        members["configuration"] = base64url_encode(self.configuration)
        return members

    @property
    def digest(self) -> bytes:
        """What a receipt repeats: SHA-256 over the object in its compact, sorted form."""
        return _digest(self)


@functools.lru_cache(maxsize=16)  # every receipt of a server repeats the same one
def _digest(policy: RuntimePolicy) -> bytes:
    return hashlib.sha256(label("runtime-policy") + length_prefixed(compact_json(policy.members()))).digest()


_MEMBERS = frozenset(member.name for member in dataclasses.fields(RuntimePolicy))
_LIMITS = frozenset(member.name for member in dataclasses.fields(RuntimeLimits))


def parse_runtime_policy(value: object) -> RuntimePolicy:
    """Read the keyset's `runtime` object.

    Raises:
        ValueError: a missing or unknown member, or one of another type.
    """
    members = require_members(value, _MEMBERS)
    limits = require_members(members["limits"], _LIMITS)
    return RuntimePolicy(
        log_level=printable(members["log_level"]),
        telemetry=boolean(members["telemetry"]),
        isolation=printable(members["isolation"]),
        batching=boolean(members["batching"]),
        execution_providers=tuple(printable(name) for name in bounded_list(members["execution_providers"])),
        authentication=printable(members["authentication"]),
        sealing=printable(members["sealing"]),
        upload_allowed=boolean(members["upload_allowed"]),
        require_sealed=boolean(members["require_sealed"]),
        models=tuple(printable(digest) for digest in bounded_list(members["models"])),
        limits=RuntimeLimits(**{name: whole_number(limit) for name, limit in limits.items()}),
        configuration=exact_bytes(members["configuration"], 32),
    )
