"""What a 0.3 client saves of an upload or a run, loads again, and holds to what it believes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from e2e import tiny_models
from onnx import TensorProto

from blindai.channel.keyset import parse_keyset
from blindai.client import (
    AttestationError,
    BlindAiClient,
    ModelDatumType,
    RunModelResponse,
    UploadModelResponse,
)
from blindai.client.options import make_policy
from blindai.client.proof import parse_proof, verify_proof
from blindai.errors import InvalidInputError, InvalidPolicyError, InvalidReceiptError, WrongServiceError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network
DATA = [1.0, 2.0, 3.0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What two responses were when they were saved, and the model they are about."""

    model: Path
    upload: UploadModelResponse
    run: RunModelResponse

    @property
    def key(self) -> bytes:
        """The key that signed the run."""
        return parse_keyset(self.run.proof.document.keyset).receipt_public_key


@pytest.fixture(scope="module")
def kept(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Signed by a server; the tests ask it nothing more."""
    folder = tmp_path_factory.mktemp("kept")
    model = tiny_models.times(folder / "proven.onnx", 2)
    with BlindAiClient() as client:
        client.connect_server(server_url, simulation=True)
        uploaded = client.upload_model(model, shape=(1, 3), sign=True)
        response = client.run_model(DATA, sign=True, model_id=uploaded.model_id)
        uploaded.save_to_file(folder / "upload.json")
        response.save_to_file(str(folder / "run.json"))
    return Kept(model=model, upload=uploaded, run=response)


@pytest.fixture
def upload(kept: Kept) -> UploadModelResponse:
    """Loaded from its file by somebody who was not there."""
    return UploadModelResponse().load_from_file(kept.model.with_name("upload.json"))


@pytest.fixture
def run(kept: Kept) -> RunModelResponse:
    """Likewise."""
    response = RunModelResponse()
    response.load_from_file(str(kept.model.with_name("run.json")))  # in place, as 0.3 did it
    return response


def file_hash(kept: Kept) -> bytes:
    return hashlib.sha256(kept.model.read_bytes()).digest()


def changed(response: RunModelResponse | UploadModelResponse, *path: str, to: Any) -> bytes:
    """A saved response, one member of which is another."""
    document = json.loads(response.as_bytes())
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return json.dumps(document).encode()


def test_a_loaded_response_is_what_was_saved(kept: Kept, run: RunModelResponse, upload: UploadModelResponse) -> None:
    assert run.output == kept.run.output == [2.0, 4.0, 6.0]  # in 0.3 it came back as raw bytes
    assert (run.is_signed(), run.is_simulation_mode()) == (True, True)
    assert (upload.is_signed(), upload.is_simulation_mode()) == (True, True)
    assert (upload.model_id, upload.digest) == (kept.upload.model_id, kept.upload.digest)
    assert RunModelResponse().load_from_bytes(kept.run.as_bytes()).as_bytes() == run.as_bytes() == kept.run.as_bytes()
    assert UploadModelResponse().load_from_bytes(kept.upload.as_bytes()).as_bytes() == upload.as_bytes()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_saved_response_is_its_owners_and_holds_no_model(kept: Kept) -> None:
    for name in ("run.json", "upload.json"):
        assert stat.S_IMODE(kept.model.with_name(name).stat().st_mode) == 0o600
    assert len(kept.upload.as_bytes()) < 100_000
    assert set(json.loads(kept.upload.as_bytes())["upload"]) == {"salt", "response"}


@pytest.mark.parametrize(
    "given", [DATA, [DATA], np.array([DATA], np.float32), [np.array([DATA], np.float32)], {"x": DATA}]
)
def test_a_run_is_valid_for_its_data_in_any_form(run: RunModelResponse, given: Any) -> None:
    run.validate(given, allow_simulation_mode=True)


@pytest.mark.parametrize("other", [[1.0, 2.0, 3.5], [1.0, 2.0], [[DATA], [DATA]], "text", {"y": DATA}])
def test_a_run_is_not_valid_for_other_data(run: RunModelResponse, other: Any) -> None:
    with pytest.raises(InvalidReceiptError, match="other data"):
        run.validate(other, allow_simulation_mode=True)


def test_a_run_names_the_model_that_answered(kept: Kept, run: RunModelResponse) -> None:
    run.validate(DATA, allow_simulation_mode=True, model_digest=kept.upload.digest)
    with pytest.raises(InvalidReceiptError, match="another model"):
        run.validate(DATA, allow_simulation_mode=True, model_digest="sha256:" + "0" * 64)


def test_an_upload_is_valid_for_its_model_only(kept: Kept, upload: UploadModelResponse) -> None:
    for right in (file_hash(kept), file_hash(kept).hex(), file_hash(kept).hex().upper(), upload.digest):
        upload.validate(right, allow_simulation_mode=True)
    for wrong in (bytes(32), "0" * 64, "sha256:" + "0" * 64):
        with pytest.raises(InvalidReceiptError, match="another model"):
            upload.validate(wrong, allow_simulation_mode=True)
    with pytest.raises(InvalidInputError, match="SHA-256"):
        upload.validate(b"short", allow_simulation_mode=True)


def test_simulation_has_to_be_allowed(kept: Kept, run: RunModelResponse, upload: UploadModelResponse) -> None:
    with pytest.raises(AttestationError, match="simulated") as refused:
        run.validate(DATA)
    assert "allow_simulation_mode" in refused.value.hint
    with pytest.raises(AttestationError, match="simulated"):
        upload.validate(file_hash(kept), validate_quote=False, enclave_signing_key=kept.key)


def test_a_policy_is_read_only_where_it_is_asked(run: RunModelResponse, tmp_path: Path) -> None:
    """Of a simulated response it is not, as with `connect_server`; `validate(policy=…)` takes an object too."""
    run.validate(DATA, policy_file=tmp_path / "gone.toml", allow_simulation_mode=True)
    run.validate(DATA, None, make_policy("strict", insecure_simulation=False), allow_simulation_mode=True)


def test_evidence_of_hardware_is_held_to_the_policy(kept: Kept, tmp_path: Path) -> None:
    """What calls itself another TEE's gets no simulation policy, whatever the caller allows."""
    document = json.loads(kept.run.as_bytes())
    document["proof"]["attestation"]["evidence"][0]["tee"] = "sev_snp"
    response = RunModelResponse().load_from_bytes(json.dumps(document).encode())
    assert not response.is_simulation_mode()
    with pytest.raises(AttestationError):
        response.validate(DATA, allow_simulation_mode=True)
    with pytest.raises(InvalidPolicyError, match=r"gone\.toml"):
        response.validate(DATA, tmp_path / "gone.toml", allow_simulation_mode=True)
    with pytest.raises(InvalidPolicyError):
        response.validate(DATA, "insecure-simulation", allow_simulation_mode=True)  # a file, and no preset


def test_the_key_that_signed_may_be_believed_instead(kept: Kept, run: RunModelResponse) -> None:
    for key in (kept.key, Ed25519PublicKey.from_public_bytes(kept.key)):
        run.validate(DATA, validate_quote=False, enclave_signing_key=key, allow_simulation_mode=True)
    run.validate(DATA, enclave_signing_key=kept.key, allow_simulation_mode=True)
    other = Ed25519PrivateKey.generate().public_key()
    for quote in (True, False):
        with pytest.raises(InvalidReceiptError, match="another key"):
            run.validate(DATA, validate_quote=quote, enclave_signing_key=other, allow_simulation_mode=True)
    with pytest.raises(InvalidInputError, match="which key"):
        run.validate(DATA, validate_quote=False, allow_simulation_mode=True)
    with pytest.raises(InvalidInputError, match="Ed25519"):
        run.validate(DATA, enclave_signing_key=b"short", allow_simulation_mode=True)


def test_an_empty_response_is_not_signed() -> None:
    for empty in (RunModelResponse(), UploadModelResponse()):
        assert not empty.is_signed()
        with pytest.raises(InvalidReceiptError, match="not signed"):
            empty.validate(DATA, allow_simulation_mode=True)  # type: ignore[arg-type]  # any argument
        with pytest.raises(InvalidReceiptError, match="not signed"):
            empty.as_bytes()


def test_an_unsigned_response_is_not_valid(kept: Kept, run: RunModelResponse) -> None:
    for receipt in ("", "a.b.c", kept.upload.proof.receipt):
        forged = RunModelResponse().load_from_bytes(changed(run, "proof", "receipt", to=receipt))
        with pytest.raises(InvalidReceiptError):
            forged.validate(DATA, allow_simulation_mode=True)


def test_another_answer_is_not_valid(kept: Kept, run: RunModelResponse, upload: UploadModelResponse) -> None:
    with pytest.raises(InvalidReceiptError, match="outputs shown"):
        RunModelResponse().load_from_bytes(changed(run, "run", "outputs", to=[]))
    for path, value in ((("upload", "salt"), "A" * 43), (("upload", "response"), "e30")):
        forged = UploadModelResponse().load_from_bytes(changed(upload, *path, to=value))
        with pytest.raises(InvalidReceiptError, match="not the one that the receipt commits to"):
            forged.validate(file_hash(kept), allow_simulation_mode=True)


def test_what_is_no_saved_response_is_refused(kept: Kept, run: RunModelResponse, tmp_path: Path) -> None:
    for data in (b"", b"{}", b"[]", kept.run.proof.encode(), kept.upload.as_bytes(), changed(run, "version", to=2)):
        with pytest.raises(InvalidReceiptError):
            RunModelResponse().load_from_bytes(data)
    with pytest.raises(InvalidReceiptError, match="no UploadModelResponse"):
        UploadModelResponse().load_from_bytes(kept.run.as_bytes())
    with pytest.raises(FileNotFoundError):
        RunModelResponse().load_from_file(tmp_path / "gone.json")
    assert run.output == [2.0, 4.0, 6.0]


def test_the_proof_alone_is_publishable(kept: Kept) -> None:
    verified = verify_proof(
        parse_proof(kept.run.proof.encode()),
        make_policy(None, insecure_simulation=True),
        service="blindai-srv",
        now=time.time(),
    )
    assert verified.receipt.model is not None
    assert verified.receipt.model.digest == kept.upload.digest
    assert verified.opening is None


@pytest.mark.parametrize("name", ["run.json", "upload.json"])
def test_blindai_verify_reads_a_saved_response(kept: Kept, name: str) -> None:
    command = [sys.executable, "-m", "blindai.cli.main", "verify", "--insecure-simulation"]
    printed = subprocess.run([*command, kept.model.with_name(name)], capture_output=True, text=True, check=True).stdout
    assert ("2.0 4.0 6.0" in printed) is (name == "run.json")


def test_a_response_from_another_service_is_not_valid(run: RunModelResponse) -> None:
    other = RunModelResponse(server_name="another").load_from_bytes(run.as_bytes())
    with pytest.raises(WrongServiceError, match="another"):
        other.validate(DATA, allow_simulation_mode=True)


def test_whole_numbers_and_text_of_a_run_are_compared_exactly(server_url: str, tmp_path: Path) -> None:
    model = tiny_models.identity(tmp_path / "proven-tokens.onnx", TensorProto.INT64, ["batch", "sequence"])
    with BlindAiClient() as client:
        client.connect_server(server_url, simulation=True)
        client.upload_model(model, shape=(1, 8), dtype=ModelDatumType.I64)
        response = client.run_model(list(range(8)), model_id="proven-tokens")
    response.validate(list(range(8)), allow_simulation_mode=True)
    with pytest.raises(InvalidReceiptError, match="other data"):
        response.validate([0, *range(1, 7), 8], allow_simulation_mode=True)
