"""`blindai policy`: a first policy is written only after all was shown; what policies say is read and compared."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest
from cli.in_process import blindai_here
from cli.processes import SIMULATED, Ended, Served

from blindai.policies import load_policy

if TYPE_CHECKING:
    from pathlib import Path

network = pytest.mark.network

GOOD = f"""version = 1
insecure_simulation = true
level.minimum = "fresh"
release.skip = "a test"
operator.skip = "a test"
runtime.require = {{ telemetry = false }}
[tee.simulation]
measurement = ["{"ab" * 32}"]
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(GOOD, "utf-8")
    return tmp_path / "policy.toml"


def ok(*arguments: str | Path) -> Ended:
    ended = blindai_here(*arguments)
    assert ended.code == 0, ended.err
    return ended


def rows_of(ended: Ended) -> list[list[str]]:
    return [line.strip().split(maxsplit=2) for line in ended.out.splitlines()]


# init


@network
def test_a_first_policy_is_written_after_everything_was_shown_and_accepted(server: Served, tmp_path: Path) -> None:
    out = tmp_path / "policy.toml"
    ended = blindai_here("policy", "init", server.url, "-o", out, SIMULATED, stdin="y\n")
    assert ended.code == 0, ended.err
    measurement = tomllib.loads(out.read_text("utf-8"))["tee"]["simulation"]["measurement"][0]
    for shown in (
        f"simulation measurement: {measurement}",
        "runtime telemetry: False",
        "software: blindai",
        out.read_text("utf-8"),
    ):
        assert shown in ended.out
    assert f"shall {out} be written? [y/N]" in ended.err
    assert "SIMULATION, NOT SECURE" in ended.err
    assert all("#" in line for line in out.read_text("utf-8").splitlines() if "=" in line)  # each says what it means
    assert ok("attest", server.url, "--policy", out).code == 0
    assert "enforced  tee.simulation.measurement" in ok("policy", "check", out).out


@network
@pytest.mark.parametrize("answer", ["n\n", "", "\n", "yess\n"])
def test_nothing_is_written_without_a_yes(server: Served, tmp_path: Path, answer: str) -> None:
    out = tmp_path / "policy.toml"
    assert blindai_here("policy", "init", server.url, "-o", out, SIMULATED, stdin=answer).code == 1
    assert list(tmp_path.iterdir()) == []


@network
def test_a_file_that_is_there_is_replaced_only_on_request(server: Served, written: Path) -> None:
    refused = blindai_here("policy", "init", server.url, "-o", written, SIMULATED, "--yes")
    assert (refused.code, written.read_text("utf-8")) == (2, GOOD)
    assert "--force" in refused.err
    assert blindai_here("policy", "init", server.url, "-o", written, SIMULATED, "--yes", "--force").code == 0
    assert load_policy(written).insecure_simulation
    assert written.read_text("utf-8") != GOOD
    assert list(written.parent.iterdir()) == [written]


@network
def test_a_simulation_is_taken_for_a_policy_only_on_request(server: Served, tmp_path: Path) -> None:
    ended = blindai_here("policy", "init", server.url, "-o", tmp_path / "p.toml", "--yes")
    assert (ended.code, list(tmp_path.iterdir())) == (5, [])
    assert "--insecure-simulation" in ended.err


@network
def test_a_first_policy_comes_from_a_proof_too(server: Served, doubling: str, rows: Path, tmp_path: Path) -> None:
    proof, out = tmp_path / "proof.json", tmp_path / "policy.toml"
    ok("infer", server.url, doubling, rows, SIMULATED, "--proof", proof)
    ok("policy", "init", proof, "-o", out, SIMULATED, "--yes")
    assert ok("verify", proof, "--policy", out).code == 0
    assert "# A first policy" in out.read_text("utf-8")
    assert "proof.json" in out.read_text("utf-8")


@network
@pytest.mark.parametrize(
    ("source", "options", "code", "problem"),
    [
        ("nowhere.json", [], 2, "No such file"),
        ("https://127.0.0.1:1", [], 1, "cannot connect"),
        ("https://127.0.0.1:1", ["--preset", "lax"], 2, "a preset is one of strict"),
    ],
)
def test_a_first_policy_needs_something_to_look_at(
    source: str, options: list[str], code: int, problem: str, *, tmp_path: Path
) -> None:
    ended = blindai_here("policy", "init", source, "-o", tmp_path / "p.toml", "--yes", *options)
    assert (ended.code, problem in ended.err) == (code, True), ended.err


def test_evidence_that_is_none_makes_no_policy(tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_text("{}", "utf-8")
    ended = blindai_here("policy", "init", tmp_path / "evidence.json", "-o", tmp_path / "p.toml", "--yes")
    assert (ended.code, (tmp_path / "p.toml").exists()) == (6, False)


# check


def test_check_shows_what_is_enforced_and_what_is_skipped_with_its_reason(written: Path) -> None:
    ended = ok("policy", "check", written)
    rows = rows_of(ended)
    assert ["enforced", "runtime.require.telemetry", "false"] in rows
    assert ["skipped", "operator.public_keys", "a test"] in rows
    assert "5 enforced" not in ended.err
    assert "4 enforced, 2 skipped" in ended.err
    told = json.loads(ok("policy", "check", written, "--json").out)
    assert {"place": "release.minimum", "force": "skipped", "accepts": "a test"} in told["rules"]


def test_check_names_the_line_of_an_error(written: Path) -> None:
    written.write_text(GOOD.replace('"fresh"', '"stale"'), "utf-8")
    ended = blindai_here("policy", "check", written)
    assert (ended.code, ended.out) == (2, "")
    assert f"error: {written}, line 3: `level.minimum` must be one of pinned-tls, cached, fresh" in ended.err


def test_check_says_that_a_policy_without_tees_accepts_nobody() -> None:
    assert "accepts nobody" in ok("policy", "check", "strict").err


# diff


def test_diff_shows_what_each_accepts_alone(written: Path) -> None:
    other = written.with_name("other.toml")
    other.write_text(
        GOOD.replace('operator.skip = "a test"', f'operator.public_keys = ["{"A" * 43}"]').replace("ab", "cd"), "utf-8"
    )
    ended = blindai_here("policy", "diff", written, other)
    assert ended.code == 1
    rows = rows_of(ended)
    assert rows[1:] == [
        [str(written), "operator.public_keys", "anything (a test)"],
        [str(written), "tee.simulation.measurement", "ab" * 32],
        [str(other), "tee.simulation.measurement", "cd" * 32],
    ]
    told = json.loads(blindai_here("policy", "diff", written, other, "--json").out)
    assert [len(told["only_first"]), len(told["only_second"])] == [2, 1]


def test_diff_of_the_same_is_nothing(written: Path) -> None:
    other = written.with_name("other.toml")
    other.write_text("# a comment\n" + GOOD, "utf-8")
    assert ok("policy", "diff", written, other).out == "both accept the same\n"
    assert blindai_here("policy", "diff", written, "nowhere.toml").code == 2
