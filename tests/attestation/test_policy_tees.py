"""Presets, alternatives and manifests: what a policy file takes from elsewhere, and what it may not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.evidence import Level
from blindai.attestation.manifest import sign_manifest
from blindai.attestation.policy import Policy, parse_policy
from blindai.attestation.policy_file import Section, Skip
from blindai.attestation.policy_runtime import RuntimeRequirement
from blindai.attestation.policy_tees import MAX_ALTERNATIVES, fields_of, no_presets
from blindai.attestation.tee import TEES
from blindai.attestation.tee.simulation import SimulationPolicy
from blindai.errors import InvalidPolicyError
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = base64url_encode(SIGNER.public_key().public_bytes_raw())
VALUE = "ab" * 32
MODEL = "sha256:" + "cd" * 32
GOOD_ONE = f'[[any_of]]\n[any_of.tee.simulation]\nmeasurement = ["{VALUE}"]\n'
GENERAL = """version = 1
insecure_simulation = true
operator.skip = "a test"
level.minimum = "fresh"
runtime.skip = "a test"
release.skip = "a test"
"""
MANIFEST = f"""version = 1
name = "blindai"
release = "1.2.0"
[tee.simulation]
measurement = ["{VALUE}"]
[models]
risk = "{MODEL}"
"""
NAMED = f"""[manifest]
file = "manifest.toml"
public_keys = ["{KEY}"]
"""
PRESETS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("strict", "general"): {"insecure_simulation": True, "level": {"minimum": "cached"}, "release": {"skip": "preset"}},
    ("strict", "simulation"): {"measurement": {"skip": "the preset says so"}},
    ("cloud-gcp", "general"): {"insecure_simulation": 1},
}


def preset_table(preset: str, tee: str) -> Mapping[str, Any] | None:
    return PRESETS.get((preset, tee))


def reading(files: Mapping[str, bytes], presets: Any = no_presets) -> Any:
    """Parses policies that name these files."""

    def read_file(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", name)
        return files[name]

    return lambda text: parse_policy(text, source="p", preset_table=presets, read_file=read_file)


def signed(manifest: str, key: Ed25519PrivateKey = SIGNER) -> dict[str, bytes]:
    line = sign_manifest(manifest.encode(), key).line()
    return {"manifest.toml": manifest.encode(), "manifest.toml.sig": f"{line}\n".encode()}


def refusal(text: str, parse: Any) -> InvalidPolicyError:
    with pytest.raises(InvalidPolicyError) as refused:
        parse(text)
    return refused.value


# Presets


def test_a_preset_sets_what_the_file_does_not() -> None:
    text = 'version = 1\npreset = "strict"\noperator.skip = "a"\nruntime.skip = "b"\n[tee.simulation]\n'
    assert parse_policy(text, source="p", preset_table=preset_table) == Policy(
        source="p",
        insecure_simulation=True,
        minimum_level=Level.CACHED,
        operator=Skip(reason="a"),
        runtime=Skip(reason="b"),
        any_of=((SimulationPolicy(measurement=Skip(reason="the preset says so")),),),
        release=Skip(reason="preset"),
    )


def test_what_the_file_sets_goes_before_the_preset() -> None:
    text = GENERAL + f'preset = "strict"\ntee.simulation.measurement = ["{VALUE}"]\n'
    policy = parse_policy(text, source="p", preset_table=preset_table)
    assert (policy.minimum_level, policy.release) == (Level.FRESH, Skip(reason="a test"))
    assert policy.any_of == ((SimulationPolicy(measurement=(bytes.fromhex(VALUE),)),),)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('preset = "lax"\n', 7, "`preset` must be one of strict, cloud-azure, cloud-gcp, cloud-aws"),
        ("preset = 1\n", 7, "`preset` must be one of"),
        ('preset = ["strict"]\n', 7, "`preset` must be one of"),
        ('preset = "cloud-aws"\n[tee.simulation]\n', 8, "`tee.simulation` cannot be met by the preset cloud-aws"),
        ('preset = "strict"\n[tee.simulation]\nsize = 1\n', 9, "`tee.simulation.size` is not known here"),
    ],
)
def test_a_preset_that_does_not_fit_is_an_error(text: str, line: int, problem: str) -> None:
    error = refusal(GENERAL + text, reading({}, preset_table))
    assert str(error).startswith(f"p, line {line}: {problem}")


def test_an_error_in_what_a_preset_says_names_the_preset() -> None:
    text = 'version = 1\npreset = "cloud-gcp"\noperator.skip = "a"\nlevel.minimum = "fresh"\nruntime.skip = "b"\n'
    error = refusal(text + 'release.skip = "c"\n[tee.simulation]\n', reading({}, preset_table))
    assert "`insecure_simulation` (from the preset cloud-gcp) must be true or false" in str(error)


def test_an_error_inside_a_table_of_a_presets_names_the_preset() -> None:
    inside: dict[str, Any] = {"level": {"minimum": "lax"}, "runtime": {"require": {"a": 1.5}}}
    head = 'version = 1\npreset = "strict"\ninsecure_simulation = true\noperator.skip = "a"\nrelease.skip = "c"\n'
    for own, problem in (
        ('runtime.skip = "b"\n', "`level.minimum` (from the preset strict) must be one of"),
        ('level.minimum = "fresh"\n', "`runtime.require.a` (from the preset strict) must be true, false"),
        ('runtime.skip = "b"\nlevel.minimum = "lax"\n', "`level.minimum` must be one of"),
    ):
        error = refusal(head + own + "[tee.simulation]\n", reading({}, lambda *_: inside))
        assert problem in str(error)


def test_without_a_preset_every_field_must_be_set() -> None:
    error = refusal(GENERAL.replace('release.skip = "a test"\n', "") + "[tee.simulation]\n", reading({}, preset_table))
    assert "does not set `release`, and a policy leaves nothing open" in str(error)
    assert "does not set `measurement`" in str(refusal(GENERAL + "[tee.simulation]\n", reading({}, preset_table)))


# Alternatives


def test_alternatives_stand_for_each_other() -> None:
    two = "".join(f'[[any_of]]\n[any_of.tee.simulation]\nmeasurement = ["{value * 32}"]\n' for value in ("aa", "bb"))
    policy = parse_policy(GENERAL + two, source="p")
    assert policy.any_of == tuple((SimulationPolicy(measurement=(bytes([value]) * 32,)),) for value in (0xAA, 0xBB))


def test_what_stands_beside_alternatives_is_part_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second TEE, that is verified as the first one is, so that there are two to name."""
    monkeypatch.setitem(TEES, "device", replace(TEES["simulation"], parse_policy=_device))
    one = f'[[any_of]]\n[any_of.tee.simulation]\nmeasurement = ["{VALUE}"]\n'
    device = f'[tee.device]\nmeasurement = ["{VALUE}"]\n'
    policy = parse_policy(GENERAL + device + one + one, source="p")
    assert [[tee.tee for tee in tees] for tees in policy.any_of] == [["device", "simulation"]] * 2


def _device(section: Section) -> SimulationPolicy:
    policy: SimulationPolicy = TEES["simulation"].parse_policy(section)
    return replace(policy, tee="device")


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("any_of = []", 7, "`any_of` must be at least one table"),
        ("any_of = 1", 7, "`any_of` must be at least one table"),
        ("any_of = [1]", 7, "`any_of` must be at least one table"),
        ("any_of = [{ tee = {} }, 1]", 7, "`any_of` must be at least one table"),
        ("[[any_of]]\n", 7, "`any_of` does not set `tee`"),
        ("[[any_of]]\ntee = 1\n", 8, "`any_of.tee` must be a table"),
        ("[[any_of]]\ntee = {}\n", 8, "`any_of.tee` names no TEE"),
        ("[[any_of]]\n[any_of.tee.none]\n", 8, "`any_of.tee.none` is no TEE that this release can verify"),
        ("[[any_of]]\n[any_of.level]\n", 8, "`any_of.level` is not known here; known are tee"),
        (
            GOOD_ONE + GOOD_ONE.replace(VALUE, "00"),
            12,
            "`any_of.tee.simulation.measurement` must be a list of SHA-256 digests",
        ),
        (
            f'[tee.simulation]\nmeasurement = ["{VALUE}"]\n[[any_of]]\n[any_of.tee.simulation]\n',
            10,
            "`any_of.tee.simulation` stands outside of `any_of`, too",
        ),
        ("any_of = [" + "{ tee = { simulation = {} } }, " * 65 + "]", 7, "`any_of` has more than 64 alternatives"),
        ("", 1, "`tee` names no TEE"),
    ],
)
def test_alternatives_are_said_exactly(text: str, line: int, problem: str) -> None:
    assert str(refusal(GENERAL + text, reading({}))).startswith(f"p, line {line}: {problem}")


def test_there_may_be_as_many_alternatives_as_64() -> None:
    assert len(parse_policy(GENERAL + GOOD_ONE * MAX_ALTERNATIVES, source="p").any_of) == 64


# Manifests


def test_reference_values_come_from_a_signed_manifest() -> None:
    text = GENERAL + NAMED + '[tee.simulation]\nreference_values = "manifest"\n'
    assert reading(signed(MANIFEST))(text).any_of == ((SimulationPolicy(measurement=(bytes.fromhex(VALUE),)),),)


def test_models_come_from_a_signed_manifest() -> None:
    demands = GENERAL.replace('runtime.skip = "a test"', 'runtime.require = { models = "manifest", telemetry = false }')
    policy = reading(signed(MANIFEST))(demands + NAMED + '[tee.simulation]\nreference_values = "manifest"\n')
    assert policy.runtime == (
        RuntimeRequirement(path=("models",), accepted=(MODEL,)),
        RuntimeRequirement(path=("telemetry",), accepted=(False,)),
    )


@pytest.mark.parametrize("manifest", ["", NAMED])
def test_models_of_no_manifest_are_an_error(manifest: str) -> None:
    demands = GENERAL.replace('runtime.skip = "a test"', 'runtime.require = { models = "manifest" }')
    without_models = MANIFEST[: MANIFEST.index("[models]")]
    error = refusal(demands + manifest + "[tee.simulation]\n", reading(signed(without_models)))
    assert str(error).startswith("p, line 5: `runtime.require.models` needs a `[manifest]` that names models")


@pytest.mark.parametrize(
    ("tee", "line", "problem"),
    [
        ('reference_values = "elsewhere"', 11, '`tee.simulation.reference_values` must be "manifest"'),
        (f'reference_values = "manifest"\nmeasurement = ["{VALUE}"]', 12, "measurement` stands in the manifest, too"),
        ('reference_values = "manifest"\nmeasurement = { skip = "a" }', 12, "stands in the manifest, too"),
    ],
)
def test_a_value_stands_in_one_place(tee: str, line: int, problem: str) -> None:
    error = refusal(GENERAL + NAMED + f"[tee.simulation]\n{tee}\n", reading(signed(MANIFEST)))
    assert str(error).startswith(f"p, line {line}: ")
    assert problem in str(error)


def test_a_manifest_sets_no_check() -> None:
    """Who signs reference values has no say in what is checked: a field of the presets is none."""
    text = GENERAL + NAMED + '[tee.simulation]\nreference_values = "manifest"\n'
    error = refusal(text, reading(signed(MANIFEST), preset_table))
    assert "line 11: `tee.simulation.reference_values` cannot be had: the manifest sets `measurement`" in str(error)


def test_an_error_in_what_the_manifest_says_names_the_manifest() -> None:
    text = GENERAL + NAMED + '[tee.simulation]\nreference_values = "manifest"\n'
    error = refusal(text, reading(signed(MANIFEST.replace(VALUE, "abcd"))))
    assert "line 10: `tee.simulation.measurement` (from the manifest of blindai 1.2.0) must be a list" in str(error)


@pytest.mark.parametrize(
    ("manifest", "named", "problem"),
    [
        (MANIFEST, "", "line 8: `tee.simulation.reference_values` needs the table `[manifest]`"),
        (
            MANIFEST.replace("[tee.simulation]", "[tee.later]"),
            NAMED,
            "line 11: `tee.simulation.reference_values` is not in the manifest",
        ),
        (
            MANIFEST,
            NAMED.replace("manifest.toml", "other.toml"),
            "line 8: `manifest.file` cannot be read: other.toml: No",
        ),
        (MANIFEST, NAMED.replace('"manifest.toml"', "1"), "line 8: `manifest.file` must be the name of a file"),
        (MANIFEST, NAMED.replace(KEY, "AAAA"), "line 9: `manifest.public_keys` must be a list of Ed25519"),
        (MANIFEST, NAMED.replace("public_keys", "keys"), "line 9: `manifest.keys` is not known here"),
        ("version = 2\n", NAMED, "line 8: `manifest.file` cannot be used: manifest.toml, line 1: `version` must be 1"),
    ],
)
def test_a_manifest_must_be_there_and_fit(manifest: str, named: str, problem: str) -> None:
    error = refusal(GENERAL + named + '[tee.simulation]\nreference_values = "manifest"\n', reading(signed(manifest)))
    assert problem in str(error)


def test_a_manifest_that_nobody_pinned_has_signed_is_refused() -> None:
    files = signed(MANIFEST, Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
    error = refusal(GENERAL + NAMED + "[tee.simulation]\n", reading(files))
    assert "`manifest.file` cannot be used: manifest.toml: no signature by a pinned key" in str(error)
    assert "new key" in error.hint


def test_an_old_manifest_is_refused_however_well_signed() -> None:
    newer = GENERAL.replace('release.skip = "a test"', 'release.minimum = "1.3.0"')
    text = newer + NAMED + '[tee.simulation]\nreference_values = "manifest"\n'
    assert "`manifest.file` is of release 1.2.0, and `release.minimum` is 1.3.0" in str(
        refusal(text, reading(signed(MANIFEST)))
    )
    assert reading(signed(MANIFEST))(text.replace("1.3.0", "1.2.0")).release.text == "1.2.0"


def test_a_policy_without_its_folder_names_no_file() -> None:
    with pytest.raises(InvalidPolicyError, match="without its folder"):
        parse_policy(GENERAL + NAMED + "[tee.simulation]\n", source="p")


# Every TEE


@pytest.mark.parametrize("tee", TEES)
def test_each_tee_begins_by_saying_its_fields(tee: str) -> None:
    assert fields_of(tee)


def test_a_tee_that_does_not_say_its_fields_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = replace(TEES["simulation"], parse_policy=lambda section: section)
    monkeypatch.setitem(TEES, "silent", silent)
    with pytest.raises(AssertionError, match="does not begin with `require_keys`"):
        fields_of("silent")


LINES = [
    *GENERAL.splitlines(),
    *NAMED.splitlines(),
    'preset = "strict"',
    "[[any_of]]",
    "[any_of.tee.simulation]",
    "[tee.simulation]",
    "tee = 1",
    'reference_values = "manifest"',
    f'measurement = ["{VALUE}"]',
    'measurement = { skip = "x" }',
    'skip = "x"',
    "any_of = [{}]",
    "a = 1979-05-27",
    "require = { a = 1.5 }",
    'mr_enclave = "00"',
    "allow_debug = true",
    "[runtime]",
    "[release]",
    'minimum = "1.0.0"',
]


@given(st.lists(st.sampled_from(LINES) | st.text(alphabet='[]{}=." \n1atev#', max_size=20), max_size=24).map("\n".join))
def test_only_an_invalid_policy_comes_out_of_any_file(text: str) -> None:
    try:
        policy = reading(signed(MANIFEST), preset_table)(text)
    except InvalidPolicyError as error:
        assert re.match(r"p, line \d+: ", str(error))  # noqa: PT017  # whatever is raised must name a line
    else:
        assert policy.any_of
