"""The text of a first policy: what was seen, as what is accepted from now on, with a comment on each line.

Leaves out: seeing it, showing it and asking whether it is to be written (policy_init.py).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.policy_release import parse_release
from blindai.attestation.policy_tees import fields_of
from blindai.attestation.tee import simulation
from blindai.attestation.tee.tpm import TpmClaims
from blindai.errors import InvalidPolicyError
from blindai.policies import preset_table
from blindai.policies.schema import field_kinds
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Claims
    from blindai.channel.keyset import Keyset

# Members of the runtime policy that a first policy pins, and what each means.
_RUNTIME = {
    "telemetry": "whether anything about requests leaves the machine",
    "log_level": "how much the server writes down",
    "isolation": "what shares a process",
    "authentication": "who may ask at all",
    "sealing": "what keeps stored models",
    "upload_allowed": "whether models may be uploaded",
}
# Where claims call something else than the policy does.
_CLAIMS = {
    "boot_applications": "applications",
    "kernel": "kernels",
    "initrd": "initrds",
    "command_line": "command_lines",
    "boot_files": "files",
    "platforms": "device_serial",
}
_PCR = re.compile(r"pcr(\d+)")
_SIMULATED = {
    False: "evidence that anybody can make is not accepted",
    True: "THIS PROTECTS NOTHING: anybody can make simulated evidence",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the evidence and the keyset said, all of it authentic.

    Attributes:
        source: where it was seen.
        now: when, in Unix seconds.
        claims: one for each item of evidence.
        keyset: the keys that the evidence vouches for, if there were any.
        level: the level at which it was seen.
    """

    source: str
    now: float
    claims: tuple[Claims, ...]
    keyset: Keyset | None
    level: str

    @property
    def simulated(self) -> bool:
        """Whether a simulation was seen."""
        return any(claim.tee == simulation.TEE for claim in self.claims)


def first_policy(seen: Seen, preset: str) -> str:
    """A policy that accepts the software that was seen, checked as the preset says.

    Raises:
        InvalidPolicyError: the preset cannot meet a TEE that was seen, or the evidence does not say what a table needs.
    """
    return "\n".join(_lines(seen, preset)) + "\n"


def _lines(seen: Seen, preset: str) -> Iterator[str]:
    when = dt.datetime.fromtimestamp(seen.now, dt.UTC).isoformat(timespec="seconds")
    yield f"# A first policy, written by `blindai policy init` on {when}, from {_comment(seen.source)}."
    yield "# It accepts what was seen there then, and that proves only that nothing has changed since:"
    yield "# compare each reference value with those of whoever builds the software, and then trust it."
    yield ""
    yield "version = 1  # of this kind of file"
    if not seen.simulated:
        yield f'preset = "{preset}"  # says what does not stand in this file: `blindai policy check` shows all of it'
    yield f"insecure_simulation = {_toml(seen.simulated)}  # {_SIMULATED[seen.simulated]}"
    yield from _general(seen)
    for tee in dict.fromkeys(claim.tee for claim in seen.claims):
        shown = tuple(claim for claim in seen.claims if claim.tee == tee)
        yield from _tee(tee, shown, preset, simulated=seen.simulated)


def _general(seen: Seen) -> Iterator[str]:
    yield "\n[level]"
    yield f'minimum = "{seen.level}"  # how fresh the proof of the keys must be: "fresh", "cached" or "pinned-tls"'
    yield "\n[release]"
    yield _release(seen.keyset)
    yield "\n[operator]"
    yield _operator(seen.keyset)
    if seen.keyset is None:
        yield '\n[runtime]\nskip = "only evidence was seen, and no runtime policy"  # demand something if you can'
        return
    yield "\n[runtime.require]  # what an operator can set, and the attested software keeps to"
    members = seen.keyset.runtime.members()
    for name, meaning in _RUNTIME.items():
        yield f"{name} = {_toml(members[name])}  # {meaning}"


def _release(keyset: Keyset | None) -> str:
    try:
        return f'minimum = "{parse_release(keyset.software.version if keyset else None).text}"  # no older software'
    except ValueError:
        return 'skip = "no release was seen that can be compared"  # name a minimum once you know one'


def _operator(keyset: Keyset | None) -> str:
    if keyset is None or keyset.operator is None:
        return 'skip = "no operator had admitted what was seen"  # anybody can start the same software: pin an operator'
    key = base64url_encode(keyset.operator.public_key)
    return f'public_keys = ["{key}"]  # who has admitted this instance: compare it with what they publish'


def _tee(tee: str, shown: tuple[Claims, ...], preset: str, *, simulated: bool) -> Iterator[str]:
    """One table for all evidence of a TEE; several devices of a kind share it."""
    table = {} if simulated else preset_table(preset, tee)
    if table is None:
        raise InvalidPolicyError(
            f"the preset {preset} cannot meet {tee}, which was shown", hint="choose another with --preset"
        )
    wanted = [field for field in fields_of(tee) if field not in table]
    values = {field: _reference_value(tee, shown, field) for field in wanted}
    if wanted and all(value is None for value in values.values()):
        raise InvalidPolicyError(f"evidence of {tee} was shown that says none of {', '.join(wanted)}")
    yield f"\n[tee.{tee}]  # it must show evidence, and what stands here must be so"
    for field, value in values.items():
        said = '{ skip = "the evidence said nothing of it" }' if value is None else _toml(value)
        yield f"{field} = {said}  # {'put a value here once you know one' if value is None else 'as the evidence said'}"
    if not simulated:
        yield from _tpm_keys([claim for claim in shown if isinstance(claim, TpmClaims)])


def _tpm_keys(shown: Sequence[TpmClaims]) -> Iterator[str]:
    """A TPM's key that no vendor certifies is accepted by its name, or not at all (docs/spec/tee/tpm.md §5)."""
    names = f"ak_names = {_toml(list(dict.fromkeys(claim.ak_name for claim in shown)))}"
    if not all(claim.ak_root for claim in shown):
        yield 'ak_certified = ["ak_name"]  # no vendor certifies the key that signed: you say that it is that TPM\'s'
        yield f"{names}  # as the evidence said; make sure of it on the machine itself, and of each new one"
    elif shown:
        yield f"# {names}  # to accept what was seen and no other TPM of that vendor's"


def _reference_value(tee: str, shown: tuple[Claims, ...], field: str) -> Any:
    """What all evidence of a TEE says of one field, in the form of its table; None if it says nothing."""
    found = [value for claims in shown if (value := _claimed(claims, field)) is not None]
    if field_kinds(tee).get(field, "").startswith("int"):
        return min(found, default=None)
    if found and isinstance(found[0], Mapping):
        return {str(key): [value] for key, value in found[0].items()}
    listed = [one for value in found for one in (value if isinstance(value, tuple) else (value,))]
    return list(dict.fromkeys(getattr(one, "text", one) for one in listed)) or None


def _claimed(claims: Claims, field: str) -> Any:
    """What claims say of a field; `pcr4` is the fourth of their `pcrs`."""
    value = _find(claims, _CLAIMS.get(field, field))
    if value is None and (register := _PCR.fullmatch(field)):
        return dict(_find(claims, "pcrs") or ()).get(int(register[1]))
    return value


def _find(value: Any, name: str) -> Any:
    """The member of that name, of claims or of the structures that they hold; `mrtd` is `mr_td`."""
    members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for one, member in members.items():
        if one.replace("_", "") == name.replace("_", ""):
            return member
    inside = (_find(member, name) for member in members.values() if dataclasses.is_dataclass(member))
    return next((found for found in inside if found is not None), None)


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case bytes():
            return f'"{value.hex()}"'
        case Mapping():
            return "{ " + ", ".join(f"{json.dumps(str(key))} = {_toml(one)}" for key, one in value.items()) + " }"
        case tuple() | list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            return json.dumps(str(value), ensure_ascii=True)  # a basic string of TOML, too


def _comment(text: str) -> str:
    """Text that cannot leave its comment."""
    return "".join(one if one.isprintable() else "?" for one in text)
