"""A proof convinces another person, elsewhere and later: no network, no server, another home, a later clock.

What is not shown: a machine whose real clock has moved. A time namespace shifts only the monotonic and boot clocks,
and faketime cannot be had from PyPI. So the later hour reaches the verifier by `--at`, by a Python clock that is moved
in a process of its own before the verb starts, and as `now` of `verify_proof`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.processes import COMMAND, SIMULATED, Ended, blindai, run, served, without_network
from e2e.tiny_models import times

from blindai import connect
from blindai.client.proof import parse_opening, parse_proof
from blindai.client.transport import parse_server_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.network

HOUR_S = 3600
LATER_VERB = (
    f"import time; now = time.time; time.time = lambda: now() + {HOUR_S}; from blindai.cli.main import main; main()"
)
LATER_CALL = f"""
import sys, time
from pathlib import Path
from blindai.attestation.policy import insecure_simulation_policy
from blindai.client.proof import opened_outputs, parse_opening, parse_proof, verify_proof
proof, opening = (Path(name).read_bytes() for name in sys.argv[1:3])
verified = verify_proof(parse_proof(proof), insecure_simulation_policy(), service="blindai-srv",
                        now=time.time() + {HOUR_S}, opening=parse_opening(opening))
print(verified.receipt.model.digest, opened_outputs(verified.opening))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run's proof and opening, as files."""

    proof: Path
    opening: Path

    def verify(self, *options: str | Path) -> Ended:
        """Verify this proof with its opening, here."""
        return blindai("verify", self.proof, "--opening", self.opening, SIMULATED, *options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """What is left once the server is gone.

    Attributes:
        one: a run of a process and home of its own.
        other: another, with other keys.
        first: a run of a client that made two, so with the keys of `second`.
        second: the other one of that client.
        port: where the server was.
    """

    one: Run
    other: Run
    first: Run
    second: Run
    digest: str
    port: int


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Evening:
    """Four runs of one model; afterwards their server is gone."""
    folder = tmp_path_factory.mktemp("runs")
    model = times(folder / "doubling.onnx", 2.0)
    runs = {name: Run(proof=folder / f"{name}.json", opening=folder / f"{name}.opening.json") for name in "abcd"}
    with served(folder / "served") as server:
        with connect(server.url, insecure_simulation=True) as client:
            digest = client.upload_model(model).digest
            for name, value in (("c", 31.25), ("d", 41.25)):
                result = client.infer("doubling", np.full((1, 3), value, np.float32))
                result.proof().save(runs[name].proof)
                result.opening().save(runs[name].opening)
        for name, value in (("a", 11.25), ("b", 21.25)):
            (folder / f"home-{name}").mkdir()
            files = ("--proof", runs[name].proof, "--opening", runs[name].opening)
            ended = blindai(
                "infer", server.url, "doubling", "-", SIMULATED, *files,
                stdin=json.dumps([[value] * 3]), variables={"HOME": str(folder / f"home-{name}")},
            )  # fmt: skip
            assert ended.code == 0, ended.err
        port = parse_server_url(server.url).port
    assert blindai("models", server.url, SIMULATED).code == 1  # it is gone
    return Evening(one=runs["a"], other=runs["b"], first=runs["c"], second=runs["d"], digest=digest, port=port)


def elsewhere(command: Sequence[str], home: Path) -> Ended:
    """Run a program as somebody else would: without a network, in another home and folder."""
    home.mkdir()
    return run(["env", "-C", str(home), *without_network(command)], variables={"HOME": str(home)})


def test_the_verifiers_namespace_has_no_network(evening: Evening, tmp_path: Path) -> None:
    attempt = f"import socket; socket.create_connection(('127.0.0.1', {evening.port}), timeout=5)"
    ended = elsewhere([sys.executable, "-c", attempt], tmp_path / "other")
    assert "Network is unreachable" in ended.err


def test_a_proof_is_verified_elsewhere_at_a_later_time(evening: Evening, tmp_path: Path) -> None:
    later = dt.datetime.fromtimestamp(time.time() + HOUR_S, dt.UTC).isoformat()
    arguments = ["verify", str(evening.one.proof), "--opening", str(evening.one.opening), SIMULATED]
    ended = elsewhere([*COMMAND, *arguments, "--at", later], tmp_path / "other")
    assert ended.code == 0, ended.err
    assert "✓ the receipt is signed by the attested keys; level simulated\n" in ended.out
    assert f"  digest  {evening.digest}\n" in ended.out
    assert f"  judged  at {later}, a time that is assumed and not proven\n" in ended.out
    assert (
        "✓ the opened request and answer are those of the receipt\n  y: FP32 [1, 3]\n    22.5 22.5 22.5\n" in ended.out
    )
    assert "SIMULATION, NOT SECURE" in ended.err


def test_a_proof_is_verified_by_a_process_whose_clock_is_an_hour_later(evening: Evening, tmp_path: Path) -> None:
    arguments = ["verify", str(evening.one.proof), "--opening", str(evening.one.opening), SIMULATED, "--json"]
    ended = elsewhere([sys.executable, "-c", LATER_VERB, *arguments], tmp_path / "other")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["receipt"]["model"]["digest"] == evening.digest
    assert told["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": ["22.5"] * 3}]


def test_a_proof_is_verified_by_a_program_an_hour_later(evening: Evening, tmp_path: Path) -> None:
    program = [sys.executable, "-c", LATER_CALL, str(evening.one.proof), str(evening.one.opening)]
    ended = elsewhere(program, tmp_path / "other")
    assert ended.code == 0, ended.err
    assert ended.out.startswith(evening.digest)


def test_a_proof_without_its_opening_shows_no_data(evening: Evening) -> None:
    ended = blindai("verify", evening.one.proof, SIMULATED)
    assert ended.code == 0
    assert "not opened (give --opening" in ended.out
    assert "22.5" not in ended.out + evening.one.proof.read_text()


def test_a_simulated_proof_is_refused_unless_it_was_asked_for(evening: Evening) -> None:
    ended = blindai("verify", evening.one.proof)
    assert ended.code == 5
    assert "✗ simulation.not_accepted: " in ended.out
    assert "hint: " in ended.err


def test_a_proof_of_another_service_is_refused(evening: Evening) -> None:
    assert evening.one.verify("--service", "payroll").code == 5


def refused(run_: Run) -> str:
    """The message of a verification that must fail as an invalid receipt, and show nothing."""
    ended = run_.verify()
    assert (ended.code, ended.out) == (6, "")
    return ended.err


def test_one_changed_digit_of_the_shown_output_is_refused(evening: Evening, tmp_path: Path) -> None:
    shown = evening.one.opening.read_text()
    opening = tmp_path / "changed.json"
    for changed in ("32.5", "22.6"):
        opening.write_text(shown.replace('"22.5"', f'"{changed}"', 1))
        message = refused(dataclasses.replace(evening.one, opening=opening))
        assert "the outputs shown in the opening are not those of its answer" in message
    opening.write_text(shown)
    assert dataclasses.replace(evening.one, opening=opening).verify().code == 0


def test_one_changed_digit_in_the_answer_itself_is_refused(evening: Evening, tmp_path: Path) -> None:
    opened = parse_opening(evening.one.opening.read_bytes())
    body = opened.response_body.replace(np.float32(22.5).tobytes(), np.float32(32.5).tobytes(), 1)
    assert body != opened.response_body
    changed = dataclasses.replace(opened, response_body=body)
    changed.save(tmp_path / "changed.json")
    assert '"32.5"' in (tmp_path / "changed.json").read_text()  # what is shown agrees with it
    assert "error: " in refused(dataclasses.replace(evening.one, opening=tmp_path / "changed.json"))


@pytest.mark.parametrize("pair", [("one", "other"), ("first", "second")], ids=["other-keys", "same-keys"])
def test_the_receipt_of_another_run_is_refused(evening: Evening, pair: tuple[str, str], tmp_path: Path) -> None:
    mine, foreign = (getattr(evening, name) for name in pair)
    receipt = parse_proof(foreign.proof.read_bytes()).receipt
    swapped = dataclasses.replace(parse_proof(mine.proof.read_bytes()), receipt=receipt)
    swapped.save(tmp_path / "swapped.json")
    assert "error: " in refused(dataclasses.replace(mine, proof=tmp_path / "swapped.json"))


@pytest.mark.parametrize("pair", [("one", "other"), ("first", "second")], ids=["other-keys", "same-keys"])
def test_the_opening_of_another_run_is_refused(evening: Evening, pair: tuple[str, str]) -> None:
    mine, foreign = (getattr(evening, name) for name in pair)
    assert mine.verify().code == 0
    assert "error: " in refused(dataclasses.replace(mine, opening=foreign.opening))


def test_a_changed_receipt_is_refused(evening: Evening, tmp_path: Path) -> None:
    proof = parse_proof(evening.one.proof.read_bytes())
    head, payload, signature = proof.receipt.split(".")
    swap = str.maketrans("AB", "BA")
    for name, receipt in (
        ("signature", ".".join((head, payload, signature[:20].swapcase() + signature[20:]))),
        ("payload", ".".join((head, payload[:40] + payload[40:].translate(swap), signature))),
    ):
        dataclasses.replace(proof, receipt=receipt).save(tmp_path / f"{name}.json")
        assert "error: " in refused(dataclasses.replace(evening.one, proof=tmp_path / f"{name}.json"))


@pytest.mark.parametrize("content", [b"\xff", b'{"version": 2}', b"[" * 100])
def test_a_malformed_proof_or_opening_is_refused(evening: Evening, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    assert "malformed" in refused(dataclasses.replace(evening.one, proof=tmp_path / "bad.json"))
    assert "malformed" in refused(dataclasses.replace(evening.one, opening=tmp_path / "bad.json"))
