"""What a 0.3 client saves of a run is the proof that `blindai verify` reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from e2e import tiny_models

from blindai.client import BlindAiClient
from blindai.client.options import make_policy
from blindai.client.proof import parse_proof, verify_proof

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network


def test_a_saved_run_is_a_proof_of_its_model_without_its_data(server_url: str, tmp_path: Path) -> None:
    with BlindAiClient() as client:
        client.connect_server(server_url, simulation=True)
        uploaded = client.upload_model(tiny_models.times(tmp_path / "proven.onnx", 2))
        response = client.run_model([1, 2, 3], model_id=uploaded.model_id)
    response.save_to_file(tmp_path / "run.json")
    assert (tmp_path / "run.json").read_bytes() == response.as_bytes()
    verified = verify_proof(
        parse_proof(response.as_bytes()),
        make_policy(None, insecure_simulation=True),
        service="blindai-srv",
        now=time.time(),
    )
    assert verified.receipt.model is not None
    assert verified.receipt.model.digest == uploaded.digest
    assert verified.opening is None
