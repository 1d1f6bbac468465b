"""The operations of `configuration`, `simulation` and `store`, by this project's own code (see vector_operations)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee import azure_vtpm, tpm
from blindai.attestation.tee.simulation import verify
from blindai.attester.simulation import SimulationAttester, measure_software
from blindai.oip.tensors import Datatype, TensorSpec
from blindai.server.ensemble import EnsembleManifest
from blindai.server.model_config import EnsembleStep
from blindai.server.sealed_file import SealedFileWriter, _Cipher, read_sealed_file
from blindai.server.settings import load_settings
from blindai.server.sharing import Share
from blindai.server.store_index import StoreIndex, open_index, seal_index

if TYPE_CHECKING:
    from collections.abc import Callable

Inputs = dict[str, Any]
Outputs = dict[str, Any]


def _configuration_with_repository(inputs: Inputs) -> Outputs:
    return {"configuration": load_settings(None, inputs["settings"]).digest(inputs["repository"])}


def _encode_ensemble(inputs: Inputs) -> Outputs:
    inputs_of, outputs_of = (
        tuple(
            TensorSpec(name=spec["name"], datatype=Datatype[spec["datatype"]], shape=tuple(spec["shape"]))
            for spec in inputs[side]
        )
        for side in ("inputs", "outputs")
    )
    steps = tuple(
        EnsembleStep(
            model="any",
            version="1",
            digest=step["model"],
            inputs=tuple(sorted(step["inputs"].items())),
            outputs=tuple(sorted(step["outputs"].items())),
        )
        for step in inputs["steps"]
    )
    manifest = EnsembleManifest(files=(), inputs=inputs_of, outputs=outputs_of, steps=steps)
    return {"manifest": manifest.encode(), "digest": manifest.digest}


def _simulated_evidence(inputs: Inputs) -> Outputs:
    def device_seed(size: int) -> bytes:
        assert size == len(inputs["device_seed"])
        return bytes(inputs["device_seed"])

    item = SimulationAttester(device_seed, inputs["measurement"]).attest(inputs["bound"])
    return {"evidence": item.evidence, **dict(item.endorsements)}


def _verify_simulated(inputs: Inputs) -> Outputs:
    endorsements = tuple((name, data) for name, data in inputs["endorsements"])
    item = EvidenceItem(tee="simulation", evidence=inputs["evidence"], endorsements=endorsements)
    claims = verify(item, 0.0, Checks())
    return {"device_key": claims.device_key, "measurement": claims.measurement, "bound": claims.bound}


def _measure(inputs: Inputs) -> Outputs:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in inputs["files"]:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return {"measurement": measure_software(Path(folder))}


def _seal_chunks(inputs: Inputs) -> Outputs:
    cipher, last = _Cipher(inputs["model_key"], inputs["file_id"]), len(inputs["chunks"]) - 1
    chunks = enumerate(inputs["chunks"])
    return {"sealed": [cipher.seal(bytearray(chunk), index, last=index == last) for index, chunk in chunks]}


def _open_chunks(inputs: Inputs) -> Outputs:
    cipher, last = _Cipher(inputs["model_key"], inputs["file_id"]), len(inputs["sealed"]) - 1
    sealed = enumerate(inputs["sealed"])
    return {"chunks": [cipher.open(chunk, index, last=index == last) for index, chunk in sealed]}


def _store_file(inputs: Inputs) -> Outputs:
    """A file of zeros as it lies on disk; it is long, so only its size, digest and end are shown."""
    with tempfile.TemporaryFile() as file:
        writer = SealedFileWriter(
            key=inputs["model_key"],
            file_id=inputs["file_id"],
            descriptor=os.dup(file.fileno()),
            path="m.onnx",
            size=inputs["size"],
        )
        data = memoryview(bytes(inputs["size"]))
        while data:
            data = writer.write(data)
        writer.finish()
        file.seek(0)
        stored = file.read()
    return {"bytes": len(stored), "sha256": hashlib.sha256(stored).digest(), "end": stored[-32:]}


def _read_stored_file(inputs: Inputs) -> Outputs:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stored")
        path.write_bytes(inputs["stored"])
        chunks = read_sealed_file(path, inputs["model_key"], inputs["file_id"], inputs["size"])
        return {"content": b"".join(chunks)}


def _seal_index(inputs: Inputs) -> Outputs:
    shares = tuple(
        (owner, name, Share(run=frozenset(run), visible=frozenset(visible)))
        for owner, name, run, visible in inputs["shares"]
    )
    index = StoreIndex(generation=inputs["generation"], records=(), shares=shares)
    return {"sealed": seal_index(index, root_key=inputs["root_key"], index_id=inputs["index_id"])}


def _open_index(inputs: Inputs) -> Outputs:
    index = open_index(inputs["sealed"], root_key=inputs["root_key"])
    shares = [[owner, name, sorted(one.run), sorted(one.visible)] for owner, name, one in index.shares]
    return {"generation": index.generation, "shares": shares}


def _tpm_evidence(inputs: Inputs) -> Outputs:
    evidence = tpm.TpmEvidence(**inputs)
    encoded = tpm.encode(evidence)
    return {"evidence": encoded}


def _read_tpm_evidence(inputs: Inputs) -> Outputs:
    return dataclasses.asdict(tpm.parse(inputs["evidence"]))


def _azure_vtpm_evidence(inputs: Inputs) -> Outputs:
    evidence = azure_vtpm.AzureVtpmEvidence(**inputs)
    encoded = azure_vtpm.encode(evidence)
    return {"evidence": encoded}


SERVER_OPERATIONS: dict[str, Callable[[Inputs], Outputs]] = {
    "configuration": lambda inputs: {"configuration": load_settings(None, inputs).digest()},
    "configuration_with_repository": _configuration_with_repository,
    "encode_ensemble": _encode_ensemble,
    "simulated_evidence": _simulated_evidence,
    "verify_simulated": _verify_simulated,
    "measure": _measure,
    "seal_chunks": _seal_chunks,
    "open_chunks": _open_chunks,
    "store_file": _store_file,
    "read_stored_file": _read_stored_file,
    "tpm_evidence": _tpm_evidence,
    "read_tpm_evidence": _read_tpm_evidence,
    "azure_vtpm_evidence": _azure_vtpm_evidence,
    "seal_index": _seal_index,
    "open_index": _open_index,
}
