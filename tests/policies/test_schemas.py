"""The schemas for editors are as committed, and judge what can be judged without a parser as the parsers do.

After a wanted change: `python tests/policies/test_schemas.py --write`.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from blindai.attestation.manifest import parse_manifest
from blindai.attestation.policy import parse_policy
from blindai.attestation.policy_tees import PRESETS
from blindai.attestation.tee import TEES
from blindai.errors import InvalidManifestError, InvalidPolicyError
from blindai.policies import preset_table
from blindai.policies.schema import manifest_schema, policy_schema, tee_properties

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "policy.schema.json": policy_schema,
    "manifest.schema.json": manifest_schema,
}
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
VALUE = "ab" * 32
MODEL = "sha256:" + "cd" * 32
POLICY = f"""version = 1
insecure_simulation = true
operator.public_keys = ["{KEY}"]
level.minimum = "fresh"
release.minimum = "1.2.0rc1"
runtime.require = {{ telemetry = false, isolation = ["tenant", "model"], limits = {{ max_models = 8 }} }}
tee.simulation.measurement = ["{VALUE}"]
"""
MANIFEST = f"""version = 1
name = "blindai"
release = "1.2.0"
tee.sev_snp.measurement = ["{VALUE}"]
tee.tpm.pcrs.4 = ["{VALUE}"]
tee.sgx.isv_svn = 3
models.risk = "{MODEL}"
"""


def page(name: str) -> Path:
    return ROOT / "docs" / "reference" / name


def text_of(name: str) -> str:
    return json.dumps(SCHEMAS[name](), indent=1) + "\n"


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_as_committed(name: str) -> None:
    assert page(name).read_text("utf-8") == text_of(name), "python tests/policies/test_schemas.py --write"


def schema_accepts(schema: dict[str, Any], text: str) -> bool:
    return bool(jsonschema_rs.Draft202012Validator(schema).is_valid(tomllib.loads(text)))


def policy_accepts(text: str) -> bool:
    try:
        parse_policy(text, source="p", preset_table=preset_table)
    except InvalidPolicyError:
        return False
    return True


def manifest_accepts(text: str) -> bool:
    try:
        parse_manifest(text.encode(), source="m")
    except InvalidManifestError:
        return False
    return True


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        ("", "", True),
        (f'public_keys = ["{KEY}"]', 'skip = "why"', True),
        (f'public_keys = ["{KEY}"]', 'skip = " "', False),
        (f'public_keys = ["{KEY}"]', "public_keys = []", False),
        (f'public_keys = ["{KEY}"]', 'public_keys = ["AA"]', False),
        (f'public_keys = ["{KEY}"]', f'public_keys = ["{KEY}"]\noperator.skip = "both"', False),
        ("version = 1", "version = 2", False),
        ("version = 1", "", False),
        ("version = 1", 'version = 1\npreset = "lax"', False),
        ("insecure_simulation = true", "insecure_simulation = 1", False),
        ("insecure_simulation = true", "", False),
        ('minimum = "fresh"', 'minimum = "simulated"', False),
        ('minimum = "fresh"', 'minimum = "fresh"\nlevel.most = 1', False),
        ('release.minimum = "1.2.0rc1"', "", False),
        ("1.2.0rc1", "1.2", False),
        ("1.2.0rc1", "1.2.0\\n", False),
        ('release.minimum = "1.2.0rc1"', 'release.skip = "why"', True),
        ("telemetry = false", "telemetry = 1.5", False),
        ("telemetry = false", "Telemetry = false", False),
        ("telemetry = false", "telemetry = { a = { b = 1 } }", False),
        ("telemetry = false", "telemetry = []", True),
        (VALUE, VALUE.upper(), False),
        (f'["{VALUE}"]', "[]", False),
        (f'["{VALUE}"]', '{ skip = "why" }', True),
        (f'["{VALUE}"]', '{ skip = "why", more = 1 }', False),
        (f'tee.simulation.measurement = ["{VALUE}"]', "", False),
        (f'tee.simulation.measurement = ["{VALUE}"]', "tee = {}", False),
        (f'tee.simulation.measurement = ["{VALUE}"]', "tee.none.a = 1", False),
        (f'tee.simulation.measurement = ["{VALUE}"]', "tee.simulation = {}", False),
        (f'tee.simulation.measurement = ["{VALUE}"]', "any_of = []", False),
        (f'tee.simulation.measurement = ["{VALUE}"]', "any_of = [{}]", False),
        (
            f'tee.simulation.measurement = ["{VALUE}"]',
            f'any_of = [{{ tee = {{ simulation = {{ measurement = ["{VALUE}"] }} }} }}]',
            True,
        ),
        (
            f'tee.simulation.measurement = ["{VALUE}"]',
            f'any_of = [{{ tee.simulation.measurement = ["{VALUE}"], level.minimum = "fresh" }}]',
            False,
        ),
        ("version = 1", 'version = 1\nmanifest.file = "m"', False),
        ("version = 1", "version = 1\nmore = 1", False),
    ],
)
def test_the_policy_schema_judges_as_the_parser_does(old: str, new: str, *, accepted: bool) -> None:
    assert old in POLICY
    text = POLICY.replace(old, new, 1)
    assert (policy_accepts(text), schema_accepts(policy_schema(), text)) == (accepted, accepted)


WITH_PRESET = f'version = 1\npreset = "strict"\noperator.public_keys = ["{KEY}"]\n'


def reference_values(tee: str, value: str) -> dict[str, str]:
    """The fields that a policy with a preset must set."""
    table = preset_table("strict", tee) or {}
    return {name: value for name in tee_properties(tee) if name not in table}


@pytest.mark.parametrize("tee", [tee for tee in TEES if preset_table("strict", tee) is not None])
def test_a_policy_with_a_preset_needs_its_reference_values_alone(tee: str) -> None:
    fields = reference_values(tee, '{ skip = "a test" }')
    lines = [f"tee.{tee}.{name} = {value}" for name, value in fields.items()] or [f"tee.{tee} = {{}}"]
    whole = WITH_PRESET + "\n".join(lines)
    assert (policy_accepts(whole), schema_accepts(policy_schema(), whole)) == (True, True)
    for line, name in zip(lines, fields, strict=False):
        rest = [one.removeprefix(f"tee.{tee}.") for one in lines if one != line]
        less = WITH_PRESET + "\n".join([f"[tee.{tee}]", *rest])
        assert not policy_accepts(less)
        of_a_cloud = any(name in (preset_table(preset, tee) or {}) for preset in PRESETS)
        assert schema_accepts(policy_schema(), less) is of_a_cloud  # too fine for a schema
    bare = POLICY[: POLICY.index("tee.")] + "\n".join(lines)
    assert (policy_accepts(bare), schema_accepts(policy_schema(), bare)) == (False, False)
    manifest = WITH_PRESET + f'tee.{tee}.reference_values = "manifest"'
    assert schema_accepts(policy_schema(), manifest)  # the parser asks for the manifest itself


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        ("", "", True),
        ("version = 1", "version = 1.5", False),
        ('name = "blindai"', 'name = ""', False),
        ('name = "blindai"\n', "", False),
        ("1.2.0", "v1", False),
        (f'["{VALUE}"]', "[]", False),
        (VALUE, "xyz", False),
        ("isv_svn = 3", "isv_svn = -1", False),
        ("isv_svn = 3", "debug = true", False),
        ("isv_svn = 3", 'debug.skip = "why"', False),
        ("isv_svn = 3", "a.b.c = 1", True),
        ("isv_svn = 3", "a.b.c.d = 1", False),
        ("tee.sgx", "tee.SGX", False),
        (MODEL, "sha256:00", False),
        (f'models.risk = "{MODEL}"', "models = {}", True),
        (MANIFEST[MANIFEST.index("tee.") :], "", False),
        (MANIFEST[MANIFEST.index("tee.") :], "tee = {}\nmodels = {}", False),
        ("version = 1", "version = 1\nmore = 1", False),
    ],
)
def test_the_manifest_schema_judges_as_the_parser_does(old: str, new: str, *, accepted: bool) -> None:
    assert old in MANIFEST
    text = MANIFEST.replace(old, new, 1)
    assert (manifest_accepts(text), schema_accepts(manifest_schema(), text)) == (accepted, accepted)


@pytest.mark.parametrize(("name", "schema"), [("policy.md", policy_schema), ("manifest.md", manifest_schema)])
def test_the_specifications_examples_fit_their_schema(name: str, schema: Callable[[], dict[str, Any]]) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/spec" / name).read_text("utf-8"), re.DOTALL)
    assert [example for example in examples if not schema_accepts(schema(), example)] == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/policies/test_schemas.py --write")
    for name in SCHEMAS:
        page(name).write_text(text_of(name), "utf-8")
        print(f"wrote {page(name).relative_to(ROOT)}")
