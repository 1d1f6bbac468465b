"""Policy files: all is said or refused, errors name the line, and demands on the runtime are compared exactly."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.evidence import Level, Outcome
from blindai.attestation.policy import (
    MAX_POLICY_BYTES,
    Policy,
    insecure_simulation_policy,
    parse_policy,
    skipped_checks,
    strict_policy,
)
from blindai.attestation.policy_file import Skip
from blindai.attestation.policy_release import parse_release
from blindai.attestation.policy_runtime import RuntimeRequirement, check_runtime
from blindai.attestation.tee import TEES
from blindai.attestation.tee.simulation import SimulationPolicy
from blindai.errors import InvalidPolicyError
from blindai.policies import load_policy, read_policy

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
GOOD = f"""version = 1
insecure_simulation = true

[operator]
public_keys = ["{KEY}"]

[level]
minimum = "cached"

[release]
minimum = "1.2.0"

[runtime]
require = {{ upload_allowed = true, isolation = ["process", "model"], limits = {{ max_models = 8 }} }}

[tee.simulation]
measurement = [
  "{"00" * 32}",
  "{"ab" * 32}",
]
"""


def requiring(toml: str) -> Policy:
    start = GOOD.index("require = ")
    return parse_policy(GOOD[:start] + f"require = {{ {toml} }}\n" + GOOD[GOOD.index("[tee") :], source="p")


def outcomes(policy: Policy, runtime: dict[str, object]) -> dict[str, Outcome]:
    return {finding.code: finding.outcome for finding in check_runtime(policy.runtime, runtime)}


def test_a_policy_says_what_stands_in_its_file() -> None:
    assert parse_policy(GOOD, source="p") == Policy(
        source="p",
        insecure_simulation=True,
        minimum_level=Level.CACHED,
        operator=(bytes(range(32)),),
        runtime=(
            RuntimeRequirement(path=("upload_allowed",), accepted=(True,)),
            RuntimeRequirement(path=("isolation",), accepted=("process", "model")),
            RuntimeRequirement(path=("limits", "max_models"), accepted=(8,)),
        ),
        any_of=((SimulationPolicy(measurement=(bytes(32), b"\xab" * 32)),),),
        release=parse_release("1.2.0"),
    )
    assert parse_policy(GOOD, source="p").operator_keys == (bytes(range(32)),)


def test_each_check_can_be_left_out_with_a_reason() -> None:
    text = """version = 1
insecure_simulation = true
operator.skip = "tests"
level.minimum = "fresh"
runtime.skip = "also tests"
release.skip = "tests too"
tee.simulation.measurement.skip = "still tests"
"""
    policy = parse_policy(text, source="p")
    assert policy.operator_keys is None
    assert (policy.operator, policy.runtime) == (Skip(reason="tests"), Skip(reason="also tests"))
    assert policy.any_of == ((SimulationPolicy(measurement=Skip(reason="still tests")),),)
    assert [(finding.code, finding.outcome, finding.reason) for finding in skipped_checks(policy)] == [
        ("operator.admission", Outcome.SKIPPED, "tests"),
        ("runtime.require", Outcome.SKIPPED, "also tests"),
        ("release.minimum", Outcome.SKIPPED, "tests too"),
        ("level.minimum", Outcome.SKIPPED, "insecure_simulation waives it"),
    ]


def test_a_policy_that_skips_nothing_shows_no_skipped_check() -> None:
    strictest = replace(parse_policy(GOOD, source="p"), insecure_simulation=False, any_of=())
    assert list(skipped_checks(strictest)) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("version = 1", "version = 2", 1, "`version` must be 1"),
        ("version = 1", "version = true", 1, "`version` must be 1"),
        ("version = 1\n", "", 1, "`version` must be 1"),
        ("insecure_simulation = true", 'insecure_simulation = "yes"', 2, "must be true or false"),
        ("insecure_simulation = true", "insecure_simulation = false", 2, "`tee.simulation` is accepted only beside"),
        ("insecure_simulation = true\n", "", 1, "does not set `insecure_simulation`"),
        ("[operator]", "[operators]", 4, "`operators` is not known here"),
        (f'public_keys = ["{KEY}"]', "", 4, "`operator` sets neither `public_keys` nor `skip"),
        (f'["{KEY}"]', "[]", 5, "`operator.public_keys` must be a list of at least one"),
        (f'["{KEY}"]', f'["{KEY}="]', 5, "must be a list of Ed25519 public keys in base64url"),
        (f'["{KEY}"]', f'["{KEY[:-3]}"]', 5, "must be a list of Ed25519 public keys in base64url"),
        (f'["{KEY}"]', f'["{KEY}"]\nmore = 1', 6, "`operator.more` is not known here; known are public_keys"),
        (f'["{KEY}"]', f'["{KEY}"]\nskip = "both"', 5, "`operator.public_keys` is not known here; known are skip"),
        (f'public_keys = ["{KEY}"]', "skip = true", 5, "`operator.skip` must be the reason"),
        (f'public_keys = ["{KEY}"]', 'skip = " "', 5, "`operator.skip` must be the reason"),
        ('minimum = "1.2.0"', 'minimum = "newest"', 11, "`release.minimum` must be a version such as 1.2.0"),
        ('minimum = "1.2.0"', "", 10, "`release` sets neither `minimum` nor"),
        ('minimum = "cached"', 'minimum = "simulated"', 8, "must be one of pinned-tls, cached, fresh"),
        ('minimum = "cached"', 'minimum = ["cached"]', 8, "must be one of pinned-tls, cached, fresh"),
        ('minimum = "cached"', "minimum = 2", 8, "must be one of pinned-tls, cached, fresh"),
        ('minimum = "cached"', "", 7, "`level` does not set `minimum`"),
        ('minimum = "cached"', 'minimum = "cached"\nmaximum = 1', 9, "`level.maximum` is not known here"),
        ("require = {", "requires = {", 13, "sets neither `require` nor"),
        ("upload_allowed = true", "upload_allowed = 1.5", 14, "`runtime.require.upload_allowed` must be true, false"),
        ("upload_allowed = true", "upload_allowed = [[]]", 14, "must be true, false"),
        ("upload_allowed = true", "Upload = true", 14, "is not the name of a runtime member"),
        ("{ max_models = 8 }", "{}", 14, "`runtime.require.limits` must be true, false"),
        ("max_models = 8", "a = { b = 1 }", 14, "`runtime.require.limits.a` must be true, false"),
        ("measurement = [", "measured = [", 17, "`tee.simulation.measured` is not known here"),
        ("ab" * 32, "AB" * 32, 17, "64 lower-case hexadecimal digits"),
        ("ab" * 32, "ab", 17, "64 lower-case hexadecimal digits"),
        ("[tee.simulation]", "[tee.other]", 16, "`tee.other` is no TEE that this release can verify"),
        ("[tee.simulation]", "[tee.simulation", 16, "not TOML"),
        ('minimum = "cached"', 'minimum = "cached"\nminimum = "fresh"', 9, "not TOML"),
    ],
)
def test_an_error_names_the_line(old: str, new: str, line: int, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidPolicyError, match=re.escape(problem)) as refusal:
        parse_policy(GOOD.replace(old, new, 1), source="p.toml")
    assert str(refusal.value).startswith(f"p.toml, line {line}: ")


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ("tee = {}", "`tee` names no TEE"),
        ("tee = 1", "`tee` must be a table"),
        ("tee.simulation = 1", "`tee.simulation` must be a table"),
        ("tee.simulation = {}", "`tee.simulation` does not set `measurement`"),
        ('tee.simulation.measurement = "00"', "must be a list of at least one"),
        ('tee.simulation.measurement = {skip = "a", more = 1}', "`tee.simulation.measurement.more` is not known here"),
    ],
)
def test_a_policy_names_what_it_accepts(tables: str, problem: str) -> None:
    text = 'version = 1\ninsecure_simulation = true\noperator.skip = "a"\nlevel.minimum = "fresh"\nruntime.skip = "a"\n'
    text += 'release.skip = "a"\n'
    with pytest.raises(InvalidPolicyError, match=re.escape(problem)) as refusal:
        parse_policy(text + tables, source="p")
    assert str(refusal.value).startswith("p, line 7: ")


def test_nothing_demanded_is_said_as_a_skip() -> None:
    with pytest.raises(InvalidPolicyError, match="demands nothing"):
        requiring("")


@given(st.text(max_size=80) | st.text(alphabet='[]{}=." \n1atev', max_size=80))
def test_arbitrary_text_is_an_invalid_policy_and_nothing_worse(text: str) -> None:
    with pytest.raises(InvalidPolicyError):
        parse_policy(text, source="p")


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 10_000, "a = [{ b = 0x" + "f" * 5_000 + " }]"])
def test_toml_that_breaks_parsers_is_an_invalid_policy(text: str) -> None:
    with pytest.raises(InvalidPolicyError, match="p, line 1: not TOML"):
        parse_policy(text, source="p")


def test_a_policy_of_1_mib_is_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(GOOD.ljust(1024 * 1024, "\n"), "utf-8")
    assert load_policy(file).release == parse_release("1.2.0")
    file.write_text(GOOD.ljust(1024 * 1024 + 1, "\n"), "utf-8")
    with pytest.raises(InvalidPolicyError, match="at most 1048576 bytes"):
        load_policy(file)


def test_a_number_has_64_bits() -> None:
    for sign in ("", "-"):
        accepted = f"{sign}{2**64 - 1}"
        assert requiring(f"number = {accepted}").runtime == (
            RuntimeRequirement(path=("number",), accepted=(int(accepted),)),
        )
        with pytest.raises(InvalidPolicyError, match="a number of 65 bits"):
            requiring(f"number = {sign}{2**64}")


def test_simulation_is_said_in_two_places() -> None:
    simulation = SimulationPolicy(measurement=(bytes(32),))
    skip = Skip(reason="a test")
    for insecure, tees in ((False, (simulation,)), (True, ())):
        with pytest.raises(InvalidPolicyError):
            Policy(
                source="p",
                insecure_simulation=insecure,
                minimum_level=Level.FRESH,
                operator=skip,
                runtime=skip,
                any_of=(tees,),
            )


def test_strict_accepts_nothing_and_insecure_simulation_says_so() -> None:
    assert (strict_policy().any_of, strict_policy().insecure_simulation) == ((), False)
    assert strict_policy().minimum_level is Level.FRESH
    simulation = insecure_simulation_policy()
    assert simulation.insecure_simulation
    assert simulation.operator_keys is None
    assert all("insecure_simulation" in finding.reason for finding in skipped_checks(simulation))


def test_load_policy_knows_presets_and_files(tmp_path: Path) -> None:
    assert load_policy("strict") == strict_policy()
    assert load_policy("insecure-simulation") == insecure_simulation_policy()
    file = tmp_path / "strict"
    file.write_text(GOOD, "utf-8")
    for path in (file, str(file)):
        assert load_policy(path).source == str(file)


@pytest.mark.parametrize(
    ("data", "problem"),
    [(None, "cannot be read as a policy"), (b"\xff", "not UTF-8"), (b"#" * (MAX_POLICY_BYTES + 1), "at most")],
)
def test_a_file_that_cannot_be_read_is_an_invalid_policy(tmp_path: Path, data: bytes | None, problem: str) -> None:
    file = tmp_path / "policy.toml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(InvalidPolicyError, match=problem):
        load_policy(file)


def test_the_examples_of_the_specification_are_policies_and_one_names_each_tee() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "policy.md").read_text("utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    policies = [read_policy(example, source="policy.md", folder=Path()) for example in examples]
    assert {tee.tee for policy in policies for tees in policy.any_of for tee in tees} == set(TEES)


def test_runtime_values_are_compared_exactly() -> None:
    policy = requiring('upload_allowed = true, isolation = ["process", "model"], limits = { max_models = 1 }')
    good: dict[str, object] = {"upload_allowed": True, "isolation": "model", "limits": {"max_models": 1}, "more": 0}
    codes = ["runtime.upload_allowed", "runtime.isolation", "runtime.limits.max_models"]
    assert outcomes(policy, good) == dict.fromkeys(codes, Outcome.PASSED)
    for change in (
        {"upload_allowed": False},
        {"upload_allowed": 1},
        {"upload_allowed": "true"},
        {"isolation": "thread"},
        {"isolation": {"process": 1}},
        {"limits": {"max_models": 2}},
        {"limits": {"max_models": True}},
        {"limits": 1},
    ):
        failed = [code for code, outcome in outcomes(policy, {**good, **change}).items() if outcome is Outcome.FAILED]
        assert [code.split(".")[1] for code in failed] == list(change)


def test_a_runtime_member_that_is_not_there_fails() -> None:
    (finding,) = check_runtime(requiring("telemetry = false").runtime, {})
    assert (finding.outcome, finding.expected, finding.found) == (Outcome.FAILED, "one of false", "no such member")


def test_each_value_of_a_runtime_list_must_be_accepted() -> None:
    policy = requiring('models = ["a", "b"]')
    for models, outcome in (
        (["b"], Outcome.PASSED),
        (["a", "b"], Outcome.PASSED),
        (["a", "c"], Outcome.FAILED),
    ):
        assert outcomes(policy, {"models": models}) == {"runtime.models": outcome}


def test_only_the_models_come_from_a_manifest() -> None:
    policy = requiring('isolation = "manifest", limits = { models = "manifest" }')
    assert policy.runtime == (
        RuntimeRequirement(path=("isolation",), accepted=("manifest",)),
        RuntimeRequirement(path=("limits", "models"), accepted=("manifest",)),
    )


def test_an_empty_runtime_list_meets_no_demand_but_that_for_one() -> None:
    """Who names the models that shall be there is not served by none."""
    for demanded in ('models = ["a"]', 'models = "a"'):
        (finding,) = check_runtime(requiring(demanded).runtime, {"models": []})
        assert (finding.outcome, finding.expected, finding.found) == (Outcome.FAILED, "one of a", "nothing")
    for found, outcome in (
        ([], Outcome.PASSED),
        (["a"], Outcome.FAILED),
        ("a", Outcome.FAILED),
        ({}, Outcome.FAILED),
        (None, Outcome.FAILED),
    ):
        (finding,) = check_runtime(requiring("models = []").runtime, {"models": found})
        assert (finding.outcome, finding.expected) == (outcome, "an empty list")


def test_a_skipped_runtime_makes_no_comparison() -> None:
    assert list(check_runtime(insecure_simulation_policy().runtime, {})) == []
