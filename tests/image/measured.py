"""A client of the measured image that boots here, and changed copies of its disk: for `check_measured_image`.

Leaves out: the machines themselves (image/boot.py).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import shutil
import ssl
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
from boot import ROOT, booted, manufacture
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from e2e import tiny_models
from onnx import TensorProto, helper, numpy_helper
from predict import manifest, measure
from trees import Tools

import blindai
from blindai.attestation.checks import failed
from blindai.attestation.evidence import AttestationDocument, parse_document
from blindai.attestation.manifest import sign_manifest
from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.errors import ModelNotReadyError, PolicyViolationError
from blindai.wire import base64url_encode, compact_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from boot import Machine

    from blindai.client.results import InferResult

T = TypeVar("T")
FOLDER = Path(__file__).parents[2] / ".image"
BUILD = FOLDER / "build"
TOOLS = Tools(root=FOLDER / "tools", work=BUILD)
PORT = 50951
URL = f"https://127.0.0.1:{PORT}"
READY, ENDED, BOOT_S = "grpc 0.0.0.0:50052", "start: the server ended with", 600
START_ATTEMPTS = 5
RELEASE = "1.0.0a1"
CONFIGURATION = b"max_models = 9\n"
ACTIVATION = '["activation"]'
NOT_ASKED = '{ skip = "what is judged here did not ask the TPM" }'
POLICY = """
version = 1
insecure_simulation = false
[operator]
skip = "a test"
[release]
minimum = "1.0.0a1"
[level]
minimum = "fresh"
[runtime]
require = {{ sealing = "tpm"{runtime} }}
[manifest]
file = "manifest.toml"
public_keys = ["{public_key}"]
[tee.tpm]
reference_values = "manifest"
bank = "sha256"
required_pcrs = {pcrs}
command_line = ["{command_line}"]
boot_files = []
secure_boot = {{ skip = "a test without Secure Boot" }}
firmware_closed = true
firmware_flags = []
debug_arguments = []
ak_certified = {certified}
ak_roots = {{ skip = "the maker is a test's own" }}
ak_names = {{ skip = "any machine of this maker" }}
ek_roots = {ek_roots}
revocation_grace_s = {{ skip = "the maker is a test's own" }}
clock_safe = {{ skip = "the TPM's clock is young" }}
max_restart_count = 0
minimum_firmware_version = {{ skip = "swtpm" }}
track = []
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a client knows: the image's manifest, who signed it, and the maker of a machine's TPM.

    Attributes:
        folder: its files'.
        ek_roots: SHA-256 of that maker's root, in hexadecimal; or none, as in a production policy.
    """

    folder: Path
    ek_roots: tuple[str, ...]

    def policy(self, *, uki: bytes = b"", runtime: str = "", certified: str = ACTIVATION) -> Path:
        """A policy with a manifest of its own, by default of the image that boots here."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir()
        key = Ed25519PrivateKey.generate()
        text = manifest(measure(uki or built_uki()), RELEASE).encode()
        (folder / "manifest.toml").write_bytes(text)
        (folder / "manifest.toml.sig").write_text(sign_manifest(text, key).line() + "\n")
        values = {
            "public_key": base64url_encode(key.public_key().public_bytes_raw()),
            "pcrs": list(range(24)),
            "command_line": (BUILD / "cmdline").read_text(),
            "certified": certified,
            "ek_roots": json.dumps(self.ek_roots),
            "runtime": runtime,
        }
        (folder / "policy.toml").write_text(POLICY.format(**values))
        return folder / "policy.toml"

    def refused(self, **changes: bytes | str) -> set[str]:
        """The codes for which a policy refuses the guest that runs."""
        with pytest.raises(PolicyViolationError) as refusal:
            blindai.connect(URL, policy=self.policy(**changes))  # type: ignore[arg-type]
        return {finding.code for finding in failed(refusal.value.findings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What nobody but the client and the enclave may ever see."""

    name: str
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    inputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]]

    def model(self, path: Path) -> Path:
        """Y = x · weights, one by one."""
        node = helper.make_node("Mul", ["x", "k"], ["y"])
        face = {"x": (TensorProto.FLOAT, self.weights.shape)}, {"y": (TensorProto.FLOAT, self.weights.shape)}
        constant = numpy_helper.from_array(self.weights, "k")
        return tiny_models.save(path, [node], inputs=face[0], outputs=face[1], initialisers=[constant])

    def use(self, connection: blindai.Client) -> InferResult:
        """Run the model."""
        answer = patiently(lambda: connection.infer(self.name, self.inputs))
        assert np.array_equal(answer["y"], self.weights * self.inputs)
        return answer

    def found_in(self, data: bytes) -> set[str]:
        """Which of them stand there in clear."""
        words = {"name": self.name.encode(), "weights": self.weights.tobytes(), "inputs": self.inputs.tobytes()}
        return {kind for kind, word in words.items() if word in data}


def patiently(call: Callable[[], T]) -> T:
    """A model's process starts slowly in an emulator, at its upload too, and the server says to try again."""
    for _ in range(START_ATTEMPTS):
        with suppress(ModelNotReadyError):
            return call()
        time.sleep(1)
    raise AssertionError("the model does not start")


def new_machine(name: str) -> str:
    """The folder of a machine whose TPM nobody has used."""
    shutil.rmtree(BUILD / name, ignore_errors=True)
    manufacture(TOOLS, name)
    return name


def maker_root(machine: str) -> str:
    """SHA-256 of the root of the maker of a machine's TPM, in hexadecimal."""
    root = x509.load_pem_x509_certificate((BUILD / machine / ROOT).read_bytes())
    return hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()


def built_uki() -> bytes:
    """The image that `make image` built."""
    return (BUILD / "uki.efi").read_bytes()


@contextmanager
def serving(disk: str, machine: str, config: bytes = CONFIGURATION) -> Iterator[Machine]:
    """Boot, and wait until it serves."""
    began = time.monotonic()
    with booted(TOOLS, disk, machine, port=PORT, config=config) as guest:
        guest.wait(lambda log: READY in log or ENDED in log, BOOT_S)
        assert READY in guest.log(), guest.log()[-4000:]
        print(f"\n{disk}: serves after {time.monotonic() - began:.0f} s")
        yield guest


def changed(name: str, old: bytes, new: bytes) -> str:
    """A copy of the disk, with one place changed that is there once."""
    data = (BUILD / "disk.img").read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    (BUILD / name).write_bytes(data.replace(old, new))
    return name


def flipped(name: str, file: str, offset: int) -> str:
    """A copy of the disk, with one bit changed in this block of a partition's file."""
    with (BUILD / file).open("rb") as whole:
        whole.seek(offset)
        block = whole.read(4096)
    return changed(name, block, bytes([block[0] ^ 1]) + block[1:])


def ask(nonce: bytes) -> AttestationDocument:
    """What the guest's attestation endpoint says."""
    context = ssl._create_unverified_context()  # noqa: S323  # attestation is what is believed
    connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=60, context=context)
    try:
        connection.request("POST", ATTESTATION_PATH, compact_json({"nonce": base64url_encode(nonce)}))
        return parse_document(connection.getresponse().read())
    finally:
        connection.close()
