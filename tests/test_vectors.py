"""The byte vectors: both implementations agree with every one, the generator repeats itself, no formula is missing.

The first implementation is `blindai` (vectors/vector_operations.py), the second shares no code with it
(second_operations.py). A failing vector must fail in the same way in both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import second_hpke
import second_implementation
import second_operations
from second_json import Refused

from blindai.channel.hpke import HpkeKeyPair, seal
from blindai.errors import BlindAIError

HOME = Path(__file__).resolve().parents[1]
VECTORS = HOME / "vectors"
sys.path.append(str(VECTORS))  # vectors/ is a folder of scripts and data, not an installed package

from vector_format import Case, read_vectors  # noqa: E402  # needs the line above
from vector_operations import OPERATIONS, fixed_random  # noqa: E402  # likewise

ALL = list(read_vectors(VECTORS))
TOPICS = (
    "evidence",
    "binding",
    "bundle",
    "configuration",
    "keyset",
    "manifest",
    "padding",
    "receipt",
    "sealed",
    "session",
    "simulation",
    "store",
)
# Every L("…") of docs/spec and src/blindai. Each is evaluated by at least one vector.
LABELS = frozenset(
    [
        "admission",
        "manifest",
        "keyset",
        "kid",
        "runtime-policy",
        "report-data",
        "rd32",
        "device",
        "device-nonce",
        "batch-leaf",
        "batch-node",
        "batch-root",
        "request",
        "outer",
        "request-salt",
        "request-key",
        "frame",
        "replay",
        "transcript",
        "response-salt",
        "response-key",
        "request-full",
        "session-salt",
        "session-id",
        "session-request",
        "session-response",
        "receipt-key",
        "receipt-request",
        "salt-request",
        "receipt-response",
        "salt-response",
        "model",
        "ensemble",
        "configuration",
        "simulation-evidence",
        "simulation-device",
        "simulation-measurement",
        "stored-file",
        "stored-chunk",
        "stored-index",
        "tpm-evidence",
        "azure-vtpm-evidence",
        "tpm-activation",
    ]
)
every_vector = pytest.mark.parametrize(
    ("case", "expected"), [pytest.param(case, expected, id=f"{case.topic}-{case.slug}") for case, expected in ALL]
)
MESSAGES = [pair for pair in ALL if pair[0].operation in {"seal_request", "seal_answer"}]


@every_vector
def test_blindai_agrees(case: Case, expected: dict[str, Any]) -> None:
    if case.failure is None:
        assert OPERATIONS[case.operation](dict(case.inputs)) == expected
        return
    assert expected == {"failure": case.failure}
    with pytest.raises(BlindAIError) as refusal:
        OPERATIONS[case.operation](dict(case.inputs))
    assert refusal.value.code == case.failure


@every_vector
def test_second_implementation_agrees(case: Case, expected: dict[str, Any]) -> None:
    second_implementation.labels_used.clear()
    if case.failure is None:
        assert second_operations.OPERATIONS[case.operation](dict(case.inputs)) == expected
        assert sorted(second_implementation.labels_used) == list(case.covers)
        return
    with pytest.raises(Refused) as refusal:
        second_operations.OPERATIONS[case.operation](dict(case.inputs))
    assert refusal.value.kind == case.failure


@pytest.mark.parametrize(("case", "expected"), MESSAGES, ids=[case.slug for case, _ in MESSAGES])
@pytest.mark.parametrize("operations", [OPERATIONS, second_operations.OPERATIONS], ids=["blindai", "second"])
def test_what_was_sealed_is_read_back(case: Case, expected: dict[str, Any], operations: dict[str, Any]) -> None:
    reads = {**case.inputs, "message": expected["message"], "max_body_bytes": 4096}
    if case.operation == "seal_answer":
        reads.setdefault("request_digest", bytes(32))
    found = operations[case.operation.replace("seal", "read")](reads)
    assert (found["head"], found["body"]) == (case.inputs["head"], case.inputs["body"])
    if case.operation == "seal_request":
        assert found["request_digest"] == expected["request_digest"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_every_path_of_a_batch_leads_to_its_root(count: int) -> None:
    case, expected = next(pair for pair in ALL if pair[0].slug.endswith(f"-batch-{count}"))
    for index, nonce in enumerate(case.inputs["nonces"]):
        proof = {"nonce": nonce, "index": index, "count": count, "path": expected["paths"][index]}
        for operations in (OPERATIONS, second_operations.OPERATIONS):
            assert operations["root_from_path"](proof) == {"root": expected["root"]}


def test_hpke_by_hand_and_by_the_library_open_each_other() -> None:
    mlkem_seed, x25519_seed, content_key, info = os.urandom(64), os.urandom(32), os.urandom(32), os.urandom(100)
    keys = HpkeKeyPair(fixed_random(mlkem_seed, x25519_seed))
    assert keys.public_key == second_hpke.public_key(mlkem_seed, x25519_seed)
    by_library = seal(content_key, keys.public_key, info=info)
    assert second_hpke.hpke_open(by_library, mlkem_seed, x25519_seed, info) == content_key
    by_hand = second_hpke.hpke_seal(content_key, keys.public_key, os.urandom(32), info)
    assert keys.open(by_hand, info=info) == content_key


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_has_vectors_that_succeed_and_that_fail(topic: str) -> None:
    outcomes = {case.failure is None for case, _ in ALL if case.topic == topic}
    assert outcomes == {True, False}


def test_there_are_no_other_topics() -> None:
    assert {case.topic for case, _ in ALL} == set(TOPICS)


def test_every_formula_is_covered_by_a_vector() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (.+) \|$", (VECTORS / "SPEC_COVERAGE.md").read_text("utf-8"), re.MULTILINE
    )
    listed = {name: vectors.split(", ") for name, vectors in rows}
    assert listed.keys() == LABELS
    for name, vectors in listed.items():
        assert vectors == [f"{case.topic}/{case.slug}" for case, _ in ALL if name in case.covers]


def test_the_list_of_formulas_is_that_of_the_sources() -> None:
    sources = "".join(path.read_text("utf-8") for path in (HOME / "src/blindai").rglob("*.py"))
    named = re.findall(r'\blabel\("([a-z0-9-]+)"\)', sources)
    assert set(named) == LABELS, "give it a vector"
    elsewhere = re.findall(r'\blabel\((?!")[^)]*', sources)  # no label is made in another way
    assert elsewhere == ["label(text: str"]


def test_the_list_of_formulas_is_that_of_the_specification() -> None:
    texts = "".join(path.read_text("utf-8") for path in (HOME / "docs/spec").rglob("*.md"))
    named = set(re.findall(r'\bL\("([a-z0-9-]+)"\)', texts))
    assert named == LABELS


def test_vectors_are_small() -> None:
    large = [path for path in VECTORS.glob("*/*/*") if path.stat().st_size > 8192]
    assert large == []


def test_the_generator_writes_exactly_these_files() -> None:
    command = [sys.executable, str(VECTORS / "generate.py"), "--check"]
    environment = {**os.environ, "PYTHONPATH": str(HOME / "src")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout


def test_the_second_implementation_imports_nothing_of_the_first() -> None:
    paths = sorted((HOME / "tests").glob("second_*.py"))
    assert len(paths) == 6
    for path in paths:
        imports = re.findall(r"^ *(?:from|import) (\S+)", path.read_text("utf-8"), re.MULTILINE)
        assert imports
        assert not [module for module in imports if module.startswith(("blindai", "vector", "server"))]
