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

from blindai.attestation.policy import insecure_simulation_policy
from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.cli.operator_view import RecordingRelay, Secrets, hex_view
from blindai.cli.screen import out, print_findings, print_table, say, warn_of_simulation
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
    say(f"\n{'all checks passed' if passed else 'A CHECK FAILED'} in {time.monotonic() - started:.1f} s")
    if not passed:
        raise SystemExit(1)


def _run_steps(scratch: Path) -> bool:
    from blindai.server.tls_identity import make_tls_identity

    _step("1. Train on real data, and export to ONNX")
    study = _train()
    model_file = scratch / "tumour.onnx"
    _export(study, model_file)
    say(f"  {len(study.patients)} held-out patients of 569; {model_file.stat().st_size} bytes of ONNX")
    _step("2. Start a simulated enclave as its own process, and a relay that ends TLS before it")
    server_dir = scratch / "server"
    server_dir.mkdir()
    log = scratch / "server.log"
    with (
        simulated_server(data_dir=server_dir, log=log) as url,
        RecordingRelay(parse_server_url(url), make_tls_identity("127.0.0.1").context()) as relay,
    ):
        say(f"  server {url}\n  relay  {relay.url}")
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
        warn_of_simulation(client.attestation.simulated)
        print_findings(client.attestation.findings, indent="  ")
        uploaded = client.upload_model(model_file, progress=False)
        say(f"  uploaded {uploaded.name} version {uploaded.version}, {uploaded.digest}")
        return client.infer(uploaded.name, study.patients)


def _compare(study: Study, result: InferResult) -> bool:
    expected = study.model.predict_proba(study.patients)
    labels, probabilities = result["label"], result["probabilities"]
    difference = float(np.abs(probabilities - expected).max())
    here, there = study.model.score(study.patients, study.diagnoses), float((labels == study.diagnoses).mean())
    rows = [
        ("in this process (scikit-learn)", f"{here:.4f}"),
        ("in the enclave (through the relay)", f"{there:.4f}"),
    ]
    print_table(("predicted", "accuracy on held-out patients"), rows, indent="  ")
    say(f"  largest difference of a probability: {difference:.1e}")
    same = bool((labels == study.model.predict(study.patients)).all()) and difference < 1e-5  # noqa: PLR2004  # fp32
    return _verdict(same, "the enclave's answers are the model's own")


def _prove(result: InferResult, scratch: Path) -> bool:
    _step("4. Prove it to somebody else, offline")
    proof, opening = scratch / "proof.json", scratch / "proof.opening.json"
    result.proof().save(proof)
    result.opening().save(opening)
    verified = verify_proof(
        parse_proof(proof.read_bytes()),
        insecure_simulation_policy(),
        service=DEFAULT_SERVICE,
        now=time.time(),
        opening=parse_opening(opening.read_bytes()),
    )
    model = verified.receipt.model
    say(f"  {model.digest if model else ''} answered this request; level {verified.keyset.level.text}")
    accepted = _verdict(True, "the proof and its opening verify")  # noqa: FBT003  # verify_proof raises otherwise
    return _refuse_one_changed_digit(opening.read_text()) and accepted


def _refuse_one_changed_digit(shown: str) -> bool:
    """Change the first digit of the outputs that an opening shows."""
    at = next(place for place in range(shown.index('"data"'), len(shown)) if shown[place].isdigit())
    changed = shown[:at] + str((int(shown[at]) + 1) % 10) + shown[at + 1 :]
    try:
        parse_opening(changed.encode())
    except InvalidReceiptError as error:
        return _verdict(True, f"one digit changed is refused: {error}")  # noqa: FBT003  # this is what holds
    return _verdict(False, "one digit changed went unnoticed")  # noqa: FBT003  # likewise


def _look_as_operator(
    relay: RecordingRelay, study: Study, model_file: Path, *, server_dir: Path, log: Path, scratch: Path
) -> bool:
    _step("5. What the operator sees")
    recorded = bytes(relay.recording)
    say(f"  the relay took TLS off and kept {len(recorded):,} bytes; a sealed request begins like this:")
    say(hex_view(recorded, start=recorded.find(b"BSQ1"), rows=4))
    secrets = Secrets.of(
        [*(row.tobytes() for row in study.patients), model_file.read_bytes(), model_file.stem.encode()]
    )
    found = {
        "the relay's recording, TLS taken off": secrets.found_in(recorded),
        "the server's log": secrets.found_in(log.read_bytes()),
        "the server's disk": secrets.found_under(server_dir),
    }
    clear = study.patients.tobytes()
    refused = _post_in_clear(relay.url, clear)
    (scratch / "control").mkdir()
    (scratch / "control" / "patients.bin").write_bytes(clear)
    control = {
        "control: the same bytes posted in clear": secrets.found_in(bytes(relay.recording)[len(recorded) :]),
        "control: the same bytes written in clear": secrets.found_under(scratch / "control"),
    }
    rows = [(where, f"{count:,} found") for where, count in {**found, **control}.items()]
    print_table(("where", f"of {len(secrets.pieces):,} pieces of patients, model and name"), rows, indent="  ")
    hidden = _verdict(not any(found.values()), "nothing of the patients or the model is where the operator can look")
    works = _verdict(all(control.values()), "the same search finds them where they are in clear")
    return _verdict(refused == BAD_REQUEST, f"the server answers {refused} to clear bytes") and hidden and works


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
    say(f"  {'✓' if holds else '✗'} {statement}")
    return holds
