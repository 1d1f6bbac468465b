"""The measured image boots, and a client that knows only its signed manifest trusts it: `make test-image`.

QEMU's emulator, OVMF and a software TPM: nothing here is secret from this machine, but what is measured is what booted.
The key that attests is known by its name, which the test reads from the TPM before anything boots.
Not part of `make test`: its name is not one that pytest looks for.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from boot import booted, manufacture
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from e2e import tiny_models
from measure import manifest, measure
from tpm.software_tpm import SoftwareTpm
from trees import Tools

import blindai
from blindai.attestation.checks import Checks
from blindai.attestation.manifest import sign_manifest
from blindai.attestation.tee import tpm as verifier
from blindai.attester.tpm import TpmAttester
from blindai.errors import PolicyViolationError
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from boot import Machine

FOLDER = Path(__file__).parents[2] / ".image"
BUILD = FOLDER / "build"
TOOLS = Tools(root=FOLDER / "tools", work=BUILD)
PORT = 50951
URL = f"https://127.0.0.1:{PORT}"
READY, BOOT_S = "grpc 0.0.0.0:50052", 300
MODEL = "canary"
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
require = {{ sealing = "tpm" }}
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
ak_certified = ["ak_name"]
ak_roots = {{ skip = "no vendor certifies it" }}
ak_names = ["{ak_name}"]
revocation_grace_s = {{ skip = "no vendor certifies it" }}
clock_safe = {{ skip = "the TPM's clock is young" }}
max_restart_count = 0
minimum_firmware_version = {{ skip = "swtpm" }}
track = []
"""


@pytest.fixture(scope="module")
def machine() -> str:
    """The folder of a new machine, whose TPM nobody has used."""
    shutil.rmtree(BUILD / "machine", ignore_errors=True)
    manufacture(TOOLS, "machine")
    return "machine"


@pytest.fixture(scope="module")
def policy(machine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the client knows: the image's manifest, who signed it, and this machine's TPM."""
    folder = tmp_path_factory.mktemp("client")
    key = Ed25519PrivateKey.generate()
    text = manifest(measure((BUILD / "uki.efi").read_bytes()), "1.0.0a1").encode()
    (folder / "manifest.toml").write_bytes(text)
    (folder / "manifest.toml.sig").write_text(sign_manifest(text, key).line() + "\n")
    values = {
        "public_key": base64url_encode(key.public_key().public_bytes_raw()),
        "pcrs": list(range(24)),
        "command_line": (BUILD / "cmdline").read_text(),
        "ak_name": _ak_name(BUILD / machine / "tpm").hex(),
    }
    (folder / "policy.toml").write_text(POLICY.format(**values))
    return folder / "policy.toml"


def _ak_name(state: Path) -> bytes:
    tpm = SoftwareTpm(state)
    try:
        item = TpmAttester(tpm, state / "no-log").attest(bytes(64))
    finally:
        tpm.stop()
    return verifier.verify(item, 0.0, Checks()).ak_name


@contextmanager
def _serving(disk: str, machine: str) -> Iterator[Machine]:
    began = time.monotonic()
    with booted(TOOLS, disk, machine, port=PORT) as guest:
        guest.wait(lambda log: READY in log, BOOT_S)
        print(f"{disk}: serves after {time.monotonic() - began:.0f} s")
        yield guest


def _changed(name: str, old: bytes, new: bytes) -> str:
    """A copy of the disk, with one place changed that is there once."""
    data = (BUILD / "disk.img").read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    (BUILD / name).write_bytes(data.replace(old, new))
    return name


def test_a_client_trusts_what_was_predicted_and_the_model_outlives_the_power(
    machine: str, policy: Path, tmp_path: Path
) -> None:
    model = tiny_models.times(tmp_path / "m.onnx", 3)
    predicted = measure((BUILD / "uki.efi").read_bytes()).pcrs
    with _serving("disk.img", machine) as guest:
        for index, value in predicted.items():
            print(f"PCR {index}: predicted {value.hex()}, in the guest {guest.pcrs()[index].hex()}")
        with blindai.connect(URL, policy=policy) as client:
            assert client.attestation.level == "fresh"
            assert not client.attestation.simulated
            client.upload_model(model, name=MODEL)
            assert client.infer(MODEL, [1, 2, 3])["y"].tolist() == [[3, 6, 9]]
    with _serving("disk.img", machine), blindai.connect(URL, policy=policy) as client:
        assert client.infer(MODEL, [1, 2, 3])["y"].tolist() == [[3, 6, 9]]


def test_another_command_line_cannot_unseal(machine: str) -> None:
    """The same machine and store, after the test above; one byte of the command line inside the UKI is another."""
    disk = _changed("command-line.img", b"console=ttyS0 quiet ", b"console=ttyS0 Quiet ")
    with booted(TOOLS, disk, machine, port=PORT) as guest:
        log = guest.wait(lambda log: "start: the server ended with" in log, BOOT_S)
    assert "PCRs 4, 7, 11, 12 are not what they were: something else has booted" in log


def test_another_command_line_is_refused(machine: str, policy: Path) -> None:
    shutil.rmtree(BUILD / machine)
    manufacture(TOOLS, machine)
    with _serving("command-line.img", machine), pytest.raises(PolicyViolationError) as refusal:
        blindai.connect(URL, policy=policy)
    codes = {finding.code for finding in refusal.value.findings}
    assert codes == {"tpm.pcrs", "tpm.boot_applications", "tpm.command_line", "tpm.ak_certified", "tpm.ak_name"}


def test_a_changed_root_is_not_started(machine: str) -> None:
    """The superblock of the root's file system, which is read first."""
    with (BUILD / "root.erofs").open("rb") as root:
        start = root.read(4096)
    disk = _changed("root.img", start, bytes([start[0] ^ 1]) + start[1:])
    with booted(TOOLS, disk, machine, port=PORT) as guest:
        log = guest.wait(lambda log: "Kernel panic" in log, BOOT_S)
    assert "data block 0 is corrupted" in log
