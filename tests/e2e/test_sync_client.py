"""`Client` against a real server: connecting, predictions with their receipts and proofs, threads, the end."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from e2e import tiny_models

import blindai
from blindai.attestation.policy import insecure_simulation_policy
from blindai.client.proof import parse_opening, parse_proof, verify_proof
from blindai.errors import (
    ConnectionLostError,
    InvalidInputError,
    InvalidReceiptError,
    PolicyViolationError,
    WrongServiceError,
)
from blindai.receipts import BodyCommitment

if TYPE_CHECKING:
    from pathlib import Path

    from blindai import Client

pytestmark = pytest.mark.network

THREADS = 16
INFERENCES = 30


@pytest.fixture
def tripler(client: Client, tmp_path: Path) -> str:
    """The name of y = 3 x over FP32 [n, 3]."""
    return client.upload_model(tiny_models.times(tmp_path / "tripler.onnx", 3)).name


def test_a_simulated_server_is_refused_unless_the_caller_says_otherwise(server_url: str) -> None:
    with pytest.raises(PolicyViolationError) as refused:
        blindai.connect(server_url)
    assert refused.value.finding_code == "simulation.not_accepted"
    assert "insecure_simulation" in refused.value.hint


def test_what_was_verified_can_be_read(client: Client) -> None:
    seen = client.attestation
    assert seen.simulated
    assert seen.level == "simulated"
    assert [claims.tee for claims in seen.claims] == ["simulation"]
    assert "PROTECTS NOTHING" in seen.explain()
    assert all(finding.code in seen.explain() for finding in seen.findings)
    assert seen.keyset.runtime.telemetry is False


def test_cached_evidence_serves_whoever_asks_for_it(server_url: str, tmp_path: Path) -> None:
    with blindai.connect(server_url, level="cached", insecure_simulation=True) as client:
        assert client.attestation.keyset.kind == "epoch"
        name = client.upload_model(tiny_models.times(tmp_path / "cached.onnx", 2)).name
        assert client.infer(name, [1, 2, 3])["y"].tolist() == [[2, 4, 6]]


def test_another_service_than_the_one_asked_for_is_refused(server_url: str) -> None:
    with pytest.raises(WrongServiceError, match=r"'hospital'.*'blindai-srv'"):
        blindai.connect(server_url, service="hospital", insecure_simulation=True)


def test_choices_that_contradict_each_other_are_refused_before_anything_is_sent() -> None:
    nowhere = "https://127.0.0.1:1"
    with pytest.raises(InvalidInputError, match="exclude each other"):
        blindai.connect(nowhere, policy="strict", insecure_simulation=True)
    with pytest.raises(InvalidInputError, match="fresh, cached"):
        blindai.connect(nowhere, level="yesterday", insecure_simulation=True)


def test_nobody_listens(server_url: str) -> None:
    with pytest.raises(ConnectionLostError, match="cannot connect") as lost:
        blindai.connect("https://127.0.0.1:1", insecure_simulation=True)
    assert isinstance(lost.value, ConnectionError)
    assert "blindai serve" in lost.value.hint
    with pytest.raises(ConnectionLostError):
        blindai.connect(server_url.replace("https", "http"), insecure_simulation=True)


def test_an_output_equals_that_of_onnx_runtime_in_this_process(client: Client, tmp_path: Path) -> None:
    path = tiny_models.dense(tmp_path / "dense.onnx")
    data = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    client.upload_model(path)
    output = client.infer("dense", data)["y"]
    assert output.dtype == np.float32
    assert output.tobytes() == tiny_models.in_process(path, {"x": data})[0].tobytes()


def test_a_result_is_read_by_name_whole_or_flat(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.sum_and_difference(tmp_path / "pair.onnx"))
    result = client.infer("pair", {"a": [[3, 4]], "b": [[1, 1]]})
    assert (result.model_name, result.model_version) == ("pair", "1")
    assert {name: array.tolist() for name, array in result.as_dict().items()} == {"y": [[4, 5]], "z": [[2, 3]]}
    assert result.outputs[1].as_flat() == [2.0, 3.0]
    with pytest.raises(KeyError, match=r"'w'.*'y', 'z'"):
        result["w"]


def test_a_receipt_says_what_ran_for_whom_and_when(client: Client, tmp_path: Path) -> None:
    uploaded = client.upload_model(tiny_models.times(tmp_path / "receipted.onnx", 3))
    before_ms = int(time.time() * 1000)
    result = client.infer("receipted", [1, 2, 3])
    receipt, keyset = result.receipt, client.attestation.keyset
    assert receipt.keyset_id == result.exchange.keyset.keyset_id
    assert len(receipt.request_id) == 16
    assert (receipt.door, receipt.method, receipt.status, receipt.complete) == ("sealed", "POST", 200, True)
    assert receipt.path == "/v2/models/receipted/infer"
    assert receipt.model is not None
    assert (receipt.model.name, receipt.model.version) == ("receipted", "1")
    assert receipt.model.digest == uploaded.digest
    assert receipt.model.engine.startswith("onnxruntime ")
    assert receipt.model.precision == client.metadata("receipted").precision == "fp32"
    assert receipt.runtime_policy == keyset.runtime.digest
    assert receipt.padded
    assert before_ms <= receipt.start_ms <= receipt.end_ms <= int(time.time() * 1000)
    for commitment, body, committed in (
        (BodyCommitment.to_request(result.opening().salt), result.request_body, receipt.request),
        (BodyCommitment.to_response(result.opening().salt), result.opening().response_body, receipt.response),
    ):
        commitment.update(body)
        assert commitment.digest() == committed


def test_an_upload_has_a_receipt_too(client: Client, tmp_path: Path) -> None:
    receipt = client.upload_model(tiny_models.times(tmp_path / "owned.onnx", 3)).receipt
    assert receipt.path == "/v2/repository/models/owned/upload"
    assert receipt.model is None


def test_a_proof_convinces_from_files_alone(client: Client, tripler: str, tmp_path: Path) -> None:
    result = client.infer(tripler, [1.5, 2.5, 3.5])
    public, private = tmp_path / "proof.json", tmp_path / "proof.opening.json"
    result.proof().save(public)
    result.opening().save(private)
    assert private.stat().st_mode & 0o077 == 0

    verified = verify_proof(
        parse_proof(public.read_bytes()),
        insecure_simulation_policy(),
        service="blindai-srv",
        now=time.time() + 3600,
        opening=parse_opening(private.read_bytes()),
    )
    assert verified.receipt == result.receipt
    assert verified.opening is not None
    assert verified.opening.request_body == result.request_body
    assert json.loads(private.read_bytes())["outputs"][0]["data"] == ["4.5", "7.5", "10.5"]


def test_a_proof_does_not_open_to_another_prediction(client: Client, tripler: str) -> None:
    first, second = client.infer(tripler, [1, 2, 3]), client.infer(tripler, [1, 2, 3])
    with pytest.raises(InvalidReceiptError, match="request"):
        verify_proof(
            first.proof(),
            insecure_simulation_policy(),
            service="blindai-srv",
            now=time.time(),
            opening=second.opening(),
        )


def test_a_proof_holds_no_data(client: Client, tripler: str) -> None:
    result = client.infer(tripler, [[1234.5, 1, 1]])
    public = result.proof().encode()
    assert result.request_body not in public
    assert b"1234.5" not in public
    assert b"3703.5" in result.opening().encode()


def test_threads_share_a_client_and_get_their_own_answers(client: Client, tripler: str) -> None:
    def work(thread: int) -> int:
        right = 0
        for turn in range(INFERENCES):
            rows = np.full((1 + turn % 4, 3), thread * 1000 + turn, np.float32)
            right += int(np.array_equal(client.infer(tripler, rows)["y"], 3 * rows))
        return right

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [INFERENCES] * THREADS


def test_a_closed_client_says_so(server_url: str) -> None:
    with blindai.connect(server_url, insecure_simulation=True) as client:
        assert isinstance(client.models(), tuple)
    for call in (
        client.models,
        lambda: client.infer(None, [1]),
        lambda: client.delete_model("m"),
        lambda: client.attestation,
    ):
        with pytest.raises(ConnectionLostError, match="closed") as closed:
            call()
        assert "blindai.connect" in closed.value.hint
    assert client._connection.attested is None
    assert client._connection._session is None
    client.close()  # twice does no harm
