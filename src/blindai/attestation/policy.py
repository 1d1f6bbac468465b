"""What a relying party accepts: the policy file, and the two presets that need none (docs/spec/policy.md).

Nothing is left open: a field that neither the file nor its preset sets is an error, and leaving a check out is spelled
`skip = "reason"`.
Leaves out: the TEEs' tables (policy_tees.py, tee/), the decision (appraise.py), and where files are (blindai/policies).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.checks import leave_out
from blindai.attestation.evidence import Level
from blindai.attestation.manifest import SIGNATURE_SUFFIX, Manifest, verify_manifest
from blindai.attestation.policy_file import Skip, TeePolicy, open_policy
from blindai.attestation.policy_legacy import REASON, is_legacy, parse_legacy
from blindai.attestation.policy_release import Release, judge_release, read_release
from blindai.attestation.policy_runtime import RuntimeRequirement, parse_runtime
from blindai.attestation.policy_tees import GENERAL, PRESETS, PresetTable, TeeTables, no_presets
from blindai.attestation.tee.simulation import SimulationPolicy
from blindai.errors import InvalidManifestError, InvalidPolicyError
from blindai.wire import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section

MAX_POLICY_BYTES = 1 << 20
_MINIMUM_LEVELS = {level.text: level for level in (Level.PINNED_TLS, Level.CACHED, Level.FRESH)}
_GENERAL = ("version", "insecure_simulation", "operator", "level", "runtime", "release")
_NO_RELEASE = Skip(reason="this policy was made in Python, and names no release")
_OTHER = ("preset", "manifest", "tee", "any_of")

# The bytes of a file that a policy names, by that name; raises OSError or ValueError.
ReadFile = Callable[[str], bytes]


def no_files(name: str) -> bytes:
    """Where a policy stands alone: it can name no other file."""
    raise FileNotFoundError(2, "this policy was given without its folder", name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a relying party accepts.

    Attributes:
        source: where it comes from, for messages.
        insecure_simulation: whether simulated evidence, which protects nothing, is accepted.
        minimum_level: the lowest level; simulation waives it.
        operator: Ed25519 public keys, one of which must have admitted the instance.
        runtime: demands on the attested runtime policy.
        any_of: alternatives, one of which must be met: each names exactly the TEEs that must show evidence, and what
            is accepted of each.
        release: the least release of the attested software.
    """

    source: str
    insecure_simulation: bool
    minimum_level: Level
    operator: tuple[bytes, ...] | Skip
    runtime: tuple[RuntimeRequirement, ...] | Skip
    any_of: tuple[tuple[TeePolicy, ...], ...]
    release: Release | Skip = _NO_RELEASE

    def __post_init__(self) -> None:
        simulation = any(tee.tee == "simulation" for tees in self.any_of for tee in tees)
        if simulation and not self.insecure_simulation:
            raise InvalidPolicyError("`tee.simulation` is accepted only beside `insecure_simulation = true`")
        if self.insecure_simulation and not simulation:
            raise InvalidPolicyError("`insecure_simulation = true` needs the table `tee.simulation`")

    @property
    def operator_keys(self) -> tuple[bytes, ...] | None:
        """The operators' keys, or None if the policy skips that check."""
        return None if isinstance(self.operator, Skip) else self.operator


def strict_policy() -> Policy:
    """The preset `strict`: it names no TEE, so it accepts nothing; the refusal says what to do."""
    reason = "strict has no reference values, so it accepts nobody anyway"
    return Policy(
        source="strict",
        insecure_simulation=False,
        minimum_level=Level.FRESH,
        operator=Skip(reason=reason),
        runtime=Skip(reason=reason),
        any_of=(),
        release=Skip(reason=reason),
    )


def insecure_simulation_policy() -> Policy:
    """The preset `insecure-simulation`: accepts any simulated server, and so protects nothing."""
    return Policy(
        source="insecure-simulation",
        insecure_simulation=True,
        minimum_level=Level.FRESH,
        operator=Skip(reason="insecure_simulation: nobody operates a simulation"),
        runtime=Skip(reason="insecure_simulation: a simulated server can break every promise"),
        any_of=((SimulationPolicy(measurement=Skip(reason="insecure_simulation: anybody can sign any measurement")),),),
        release=Skip(reason="insecure_simulation: a simulated server may say any release"),
    )


def parse_policy(
    text: str, *, source: str, preset_table: PresetTable = no_presets, read_file: ReadFile = no_files
) -> Policy:
    """Read a policy file.

    Args:
        text: TOML.
        source: its name, for messages.
        preset_table: what presets say.
        read_file: reads the manifest that the policy names, and its signature.

    Raises:
        InvalidPolicyError: anything but exactly a version 1 policy, or one of the seed generation; the message names
            the line.
    """
    root = open_policy(text, source=source)
    if is_legacy(root):
        return _parse_legacy(root)
    root.require_version_1("policies")
    preset = root.choice("preset", {name: name for name in PRESETS}) if "preset" in root.members else None
    if preset is not None:
        root = root.with_defaults(preset_table(preset, GENERAL) or {}, origin=f"the preset {preset}")
    root.require_keys(*_GENERAL, optional=_OTHER)
    manifest = _parse_manifest(root.section("manifest"), read_file) if "manifest" in root.members else None
    tables = TeeTables(preset=preset, preset_table=preset_table, manifest=manifest)
    policy = _parse_version_1(root, tables)
    _require_release(root, policy, manifest)
    return policy


def _parse_version_1(root: Section, tables: TeeTables) -> Policy:
    level = root.section("level")
    level.require_keys("minimum")
    accepts_simulation = root.boolean("insecure_simulation")
    minimum_level = level.choice("minimum", _MINIMUM_LEVELS)
    operator = _parse_operator(root.section("operator"))
    runtime = parse_runtime(root.section("runtime"), tables.manifest)
    release = read_release(root.section("release"))
    any_of = tables.alternatives(root)
    try:
        return Policy(
            source=root.source,
            insecure_simulation=accepts_simulation,
            minimum_level=minimum_level,
            operator=operator,
            runtime=runtime,
            any_of=any_of,
            release=release,
        )
    except InvalidPolicyError as error:
        raise root.error(f"does not fit the rest: {error}", "insecure_simulation") from None


def _parse_legacy(root: Section) -> Policy:
    return Policy(
        source=root.source,
        insecure_simulation=False,
        minimum_level=Level.FRESH,
        operator=Skip(reason=REASON),
        runtime=Skip(reason=REASON),
        any_of=((parse_legacy(root),),),
        release=Skip(reason=REASON),
    )


def _parse_operator(section: Section) -> tuple[bytes, ...] | Skip:
    return section.skip_instead_of("public_keys") or _public_keys(section)


def _public_keys(section: Section) -> tuple[bytes, ...]:
    return section.byte_strings("public_keys", lambda value: exact_bytes(value, 32), "Ed25519 public keys in base64url")


def _parse_manifest(section: Section, read_file: ReadFile) -> Manifest:
    section.require_keys("file", "public_keys")
    file = section.line("file", "the name of a file")
    keys = _public_keys(section)
    try:
        return verify_manifest(read_file(file), read_file(file + SIGNATURE_SUFFIX), public_keys=keys, source=file)[0]
    except OSError as error:
        raise section.error(f"cannot be read: {error.filename}: {error.strerror}", "file") from None
    except InvalidManifestError as error:
        refusal = section.error(f"cannot be used: {error}", "file")
        refusal.hint = error.hint
        raise refusal from None


def _require_release(root: Section, policy: Policy, manifest: Manifest | None) -> None:
    """An old manifest, though signed, is not what a policy with a later minimum means."""
    if manifest is None or isinstance(policy.release, Skip) or manifest.release >= policy.release:
        return
    raise root.section("manifest").error(
        f"is of release {manifest.release.text}, and `release.minimum` is {policy.release.text}", "file"
    )


def skipped_checks(policy: Policy) -> Iterator[Finding]:
    """The checks outside the evidence that the policy leaves out, so that every result names them."""
    if isinstance(policy.operator, Skip):
        yield leave_out(
            code="operator.admission",
            reason=policy.operator.reason,
            found="",
            why="Otherwise anybody may boot the same software under the same name.",
        )
    if isinstance(policy.runtime, Skip):
        yield leave_out(
            code="runtime.require",
            reason=policy.runtime.reason,
            found="",
            why="An operator can set logging, isolation and more, and evidence vouches for what was set.",
        )
    if isinstance(policy.release, Skip):
        yield judge_release(policy.release, "")
    if policy.insecure_simulation:
        yield leave_out(
            code="level.minimum",
            reason="insecure_simulation waives it",
            found=Level.SIMULATED.text,
            why="A level says how fresh the proof of the keys is, and a simulation proves none.",
        )
