"""Which TEEs a policy accepts, and what of each: `[tee.X]`, alternatives, presets, manifest (docs/spec/policy.md §2).

Leaves out: each TEE's own fields (tee/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.policy_file import Section
from blindai.attestation.tee import TEES

if TYPE_CHECKING:
    from blindai.attestation.manifest import Manifest
    from blindai.attestation.policy_file import TeePolicy

STRICT = "strict"
PRESETS = (STRICT, "cloud-azure", "cloud-gcp", "cloud-aws")
GENERAL = "general"  # the tables of a policy that are about no TEE
MAX_ALTERNATIVES = 64

# What a preset says of one TEE, or of GENERAL, as a policy file would; None if it cannot meet that TEE.
PresetTable = Callable[[str, str], Mapping[str, Any] | None]

_FROM = "reference_values"
_MANIFEST = "manifest"


def no_presets(preset: str, tee: str) -> None:  # noqa: ARG001  # a PresetTable
    """Where no presets are at hand: none can meet any TEE."""
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class TeeTables:
    """Reads tables `[tee.X]`.

    Attributes:
        preset: what sets the fields that they leave out, if anything does.
        manifest: what they may take reference values from.
    """

    preset: str | None
    preset_table: PresetTable
    manifest: Manifest | None

    def alternatives(self, root: Section) -> tuple[tuple[TeePolicy, ...], ...]:
        """The alternatives of a policy: what stands under `tee` is part of each under `any_of`.

        Raises:
            InvalidPolicyError: no TEE, one that is not known, one named twice, or a table that says less or more than
                its TEE needs.
        """
        always = self._tees(root.section("tee")) if "tee" in root.members else ()
        if "any_of" not in root.members:
            if not always:
                raise root.error(f"names no TEE, so nothing could be accepted; known are {', '.join(TEES)}", "tee")
            return (always,)
        sections = root.sections("any_of")
        if len(sections) > MAX_ALTERNATIVES:
            raise root.error(f"has more than {MAX_ALTERNATIVES} alternatives", "any_of")
        return tuple((*always, *self._alternative(section, always)) for section in sections)

    def _alternative(self, section: Section, always: tuple[TeePolicy, ...]) -> tuple[TeePolicy, ...]:
        section.require_keys("tee")
        tees = section.section("tee")
        for tee in always:
            if tee.tee in tees.members:
                raise tees.error("stands outside of `any_of`, too, and one machine shows it once", tee.tee)
        return self._tees(tees)

    def _tees(self, section: Section) -> tuple[TeePolicy, ...]:
        for name in section.members:
            if name not in TEES:
                raise section.error(f"is no TEE that this release can verify; it can verify {', '.join(TEES)}", name)
        if not section.members:
            raise section.error(f"names no TEE, so nothing could be accepted; known are {', '.join(TEES)}")
        return tuple(self._tee(section, name) for name in section.members)

    def _tee(self, tees: Section, name: str) -> TeePolicy:
        section = tees.section(name)
        if _FROM in section.members:
            section = self._with_reference_values(section, name)
        if self.preset is not None:
            table = self.preset_table(self.preset, name)
            if table is None:
                raise tees.error(f"cannot be met by the preset {self.preset}", name)
            section = section.with_defaults(table, origin=f"the preset {self.preset}")
        policy: TeePolicy = TEES[name].parse_policy(section)
        return policy

    def _with_reference_values(self, section: Section, name: str) -> Section:
        """The table with what the manifest says of this TEE; no field comes from both, or is more than a value."""
        if section.members[_FROM] != _MANIFEST:
            raise section.error(f'must be "{_MANIFEST}", or the values stand here', _FROM)
        if self.manifest is None:
            raise section.error("needs the table `[manifest]`", _FROM)
        if name not in self.manifest.tees:
            raise section.error("is not in the manifest", _FROM)
        values = self.manifest.tees[name]
        checks = self.preset_table(STRICT, name) or {}
        for key in values:
            if key in checks:
                raise section.error(f"cannot be had: the manifest sets `{key}`, which is no reference value", _FROM)
            if key in section.members:
                raise section.error("stands in the manifest, too: leave it out in one of both", key)
        origin = f"the manifest of {self.manifest.name} {self.manifest.release.text}"
        return section.without(_FROM).with_defaults(values, origin=origin)


class _Asked(Exception):  # noqa: N818  # no error: it carries an answer
    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__()
        self.fields = fields


class _Question(Section):
    """A table that answers, instead of being read, which fields its TEE reads."""

    __slots__ = ()

    def require_keys(self, *required: str, optional: tuple[str, ...] = ()) -> None:
        raise _Asked(required + optional)


def fields_of(tee: str) -> tuple[str, ...]:
    """The fields of a TEE's table, as its own parser names them."""
    try:
        TEES[tee].parse_policy(_Question(source="", text="", path=("tee", tee), members={}))
    except _Asked as answer:
        return answer.fields
    raise AssertionError(f"{tee} does not begin with `require_keys`")  # a test holds every TEE to it
