"""`blindai demo`: the whole path on real data, from training to a proof, and a look as the operator.

Real data (scikit-learn's breast-cancer set, 569 patients), a real model, a server process of its own; only the TEE is
simulated, so it shows how everything works and protects nothing.
"""

from __future__ import annotations

import http.client
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from blindai.attestation.policy import insecure_simulation_policy
from blindai.cli.operator_view import RecordingRelay, Secrets, hex_view
from blindai.cli.screen import out
from blindai.cli.server_process import simulated_server
from blindai.client.proof import parse_opening, parse_proof, verify_proof
from blindai.client.sync_client import Client
from blindai.client.transport import make_tls_context, parse_server_url
from blindai.errors import InvalidReceiptError

if TYPE_CHECKING:
    from blindai.client.results import InferResult

BAD_REQUEST = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The trained model and the patients it has not seen."""

    model: Any
    patients: np.ndarray[Any, Any] = field(repr=False)
    diagnoses: np.ndarray[Any, Any] = field(repr=False)


def run_demo() -> None:
    """Run every step and say what it shows.

    Raises:
        SystemExit: with code 1 if anything is not as it must be.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="blindai-demo-") as scratch:
        passed = _run_steps(Path(scratch))
    out().print(f"\n{'all checks passed' if passed else 'A CHECK FAILED'} in {time.monotonic() - started:.1f} s")
    if not passed:
        raise SystemExit(1)


def _run_steps(scratch: Path) -> bool:
    from blindai.server.serve import make_tls_context as make_relay_tls

    _step("1. Train on real data, and export to ONNX")
    study = _train()
    model_file = scratch / "tumour.onnx"
    _export(study, model_file)
    out().print(f"  {len(study.patients)} held-out patients of 569; {model_file.stat().st_size} bytes of ONNX")
    _step("2. Start a simulated enclave as its own process, and a relay that ends TLS before it")
    server_dir = scratch / "server"
    server_dir.mkdir()
    log = scratch / "server.log"
    with (
        simulated_server(data_dir=server_dir, log=log) as url,
        RecordingRelay(parse_server_url(url), make_relay_tls("127.0.0.1")) as relay,
    ):
        out().print(f"  server {url}\n  relay  {relay.url}")
        result = _predict(relay.url, study, model_file)
        same = _compare(study, result)
        proven = _prove(result, scratch)
        hidden = _look_as_operator(relay, study, model_file, server_dir=server_dir, log=log, scratch=scratch)
    return same and proven and hidden


def _step(title: str) -> None:
    out().print(f"\n[bold]{title}[/bold]")


def _train() -> Study:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, diagnoses = load_breast_cancer(return_X_y=True)
    seen, held_out, seen_diagnoses, held_out_diagnoses = train_test_split(
        features.astype(np.float32), diagnoses, test_size=0.3, random_state=7, stratify=diagnoses
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(seen, seen_diagnoses)
    return Study(model=model, patients=held_out, diagnoses=held_out_diagnoses)


def _export(study: Study, path: Path) -> None:
    from skl2onnx import to_onnx

    classifier = study.model.steps[-1][1]
    exported = to_onnx(study.model, study.patients[:1], options={id(classifier): {"zipmap": False}}, target_opset=17)
    path.write_bytes(exported.SerializeToString())


def _predict(url: str, study: Study, model_file: Path) -> InferResult:
    _step("3. Attest, upload, predict")
    with Client(url, insecure_simulation=True) as client:
        out().print("\n".join(f"  {line}" for line in client.attestation.explain().splitlines()), markup=False)
        uploaded = client.upload_model(model_file, progress=False)
        out().print(f"  uploaded {uploaded.name} version {uploaded.version}, {uploaded.digest}")
        return client.infer(uploaded.name, study.patients)


def _compare(study: Study, result: InferResult) -> bool:
    expected = study.model.predict_proba(study.patients)
    labels, probabilities = result["label"], result["probabilities"]
    difference = float(np.abs(probabilities - expected).max())
    table = Table("where", "accuracy on held-out patients", title="prediction", title_justify="left")
    table.add_row("in this process (scikit-learn)", f"{study.model.score(study.patients, study.diagnoses):.4f}")
    table.add_row("in the enclave (through the relay)", f"{float((labels == study.diagnoses).mean()):.4f}")
    out().print(table)
    out().print(f"  largest difference of a probability: {difference:.1e}")
    same = bool((labels == study.model.predict(study.patients)).all()) and difference < 1e-5  # noqa: PLR2004  # fp32
    return _verdict(same, "the enclave's answers are the model's own")


def _prove(result: InferResult, scratch: Path) -> bool:
    _step("4. Prove it to somebody else, offline")
    proof, opening = scratch / "proof.json", scratch / "proof.opening.json"
    result.proof().save(proof)
    result.opening().save(opening)
    policy = insecure_simulation_policy()
    verified = verify_proof(
        parse_proof(proof.read_bytes()),
        policy,
        service="blindai-srv",
        now=time.time(),
        opening=parse_opening(opening.read_bytes()),
    )
    model = verified.receipt.model
    out().print(f"  {model.digest if model else ''} answered this request; level {verified.keyset.level.text}")
    accepted = _verdict(True, "the proof and its opening verify")  # noqa: FBT003  # verify_proof raises otherwise
    shown = opening.read_text()
    at = next(place for place in range(shown.index('"data"'), len(shown)) if shown[place].isdigit())
    changed = shown[:at] + str((int(shown[at]) + 1) % 10) + shown[at + 1 :]
    try:
        parse_opening(changed.encode())
    except InvalidReceiptError as error:
        return accepted and _verdict(True, f"one digit changed is refused: {error}")  # noqa: FBT003  # likewise
    return _verdict(False, "one digit changed went unnoticed")  # noqa: FBT003  # likewise


def _look_as_operator(
    relay: RecordingRelay, study: Study, model_file: Path, *, server_dir: Path, log: Path, scratch: Path
) -> bool:
    _step("5. What the operator sees")
    recorded = bytes(relay.recording)
    sealed_at = recorded.find(b"BSQ1")
    out().print(f"  the relay took TLS off and kept {len(recorded):,} bytes; a sealed request begins like this:")
    out().print(hex_view(recorded, start=sealed_at, rows=4), markup=False)
    secrets = Secrets.of([*(row.tobytes() for row in study.patients), model_file.read_bytes(), b"tumour"])
    found = {
        "the relay's recording, TLS taken off": secrets.found_in(recorded),
        "the server's log": secrets.found_in(log.read_bytes()),
        "the server's disk": secrets.found_under(server_dir),
    }
    refused = _post_in_clear(relay.url, study.patients.tobytes())
    control_dir = scratch / "control"
    control_dir.mkdir()
    (control_dir / "patients.bin").write_bytes(study.patients.tobytes())
    control = {
        "control: the same bytes posted in clear": secrets.found_in(bytes(relay.recording)[len(recorded) :]),
        "control: the same bytes written in clear": secrets.found_under(control_dir),
    }
    table = Table("where", f"of {len(secrets.pieces):,} pieces of patients, model and name", title_justify="left")
    for where, count in {**found, **control}.items():
        table.add_row(where, f"{count:,} found")
    out().print(table)
    hidden = _verdict(not any(found.values()), "nothing of the patients or the model is where the operator can look")
    works = _verdict(all(control.values()), "the same search finds them where they are in clear")
    return hidden and works and _verdict(refused == BAD_REQUEST, f"the server answers {refused} to clear bytes")


def _post_in_clear(url: str, body: bytes) -> int:
    """What an unsuspecting client would do: the path can read it, and the server refuses it."""
    server = parse_server_url(url)
    connection = http.client.HTTPSConnection(server.host, server.port, timeout=10, context=make_tls_context())
    try:
        connection.request("POST", "/v1/sealed", body, {"Content-Type": "application/vnd.blindai.sealed"})
        return connection.getresponse().status
    finally:
        connection.close()


def _verdict(holds: bool, statement: str) -> bool:  # noqa: FBT001  # the one thing it is about
    out().print(f"  {'✓' if holds else '✗'} {statement}", markup=False)
    return holds
