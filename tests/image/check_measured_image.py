"""The measured image boots, and a client that knows only its signed manifest trusts it: `make test-image`.

QEMU's emulator, OVMF and a software TPM: nothing here is secret from this machine, but what is measured is what booted.
The key that attests is known by its name, which the test reads from the TPM before anything boots.
A boot takes a minute or two, so that tests of one guest stand in one class; they run in this order.
Not part of `make test`: its name is not one that pytest looks for.
Leaves out: the endorsement key's certificates and activation, for which the guest's server has no issuers yet.
"""

from __future__ import annotations

import http.client
import secrets
import shutil
import ssl
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pytest
from archive import fetch
from boot import booted, manufacture
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from e2e import tiny_models
from locking import Entry, ImageError
from onnx import TensorProto, helper, numpy_helper
from predict import manifest, measure
from tpm.software_tpm import SoftwareTpm
from trees import Tools

import blindai
from blindai.attestation.binding import Mode
from blindai.attestation.checks import Checks, failed
from blindai.attestation.evidence import AttestationDocument, parse_document
from blindai.attestation.manifest import sign_manifest
from blindai.attestation.tee import tpm as verifier
from blindai.attester.tpm import TpmAttester
from blindai.channel.attested import accept_attestation
from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.errors import ModelNotReadyError, PolicyViolationError, RejectedEvidenceError, StaleEvidenceError
from blindai.policies import load_policy
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
CONFIGURATION, OTHER_CONFIGURATION = b"max_models = 9\n", b"max_models = 8\n"
OLD_WORD, NEW_WORD = b" slab_nomerge ", b" emergency    "  # of the command line: the new one opens a shell, elsewhere
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
ak_certified = ["ak_name"]
ak_roots = {{ skip = "no vendor certifies it" }}
ak_names = ["{ak_name}"]
revocation_grace_s = {{ skip = "no vendor certifies it" }}
clock_safe = {{ skip = "the TPM's clock is young" }}
max_restart_count = 0
minimum_firmware_version = {{ skip = "swtpm" }}
track = []
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a client knows: the image's manifest, who signed it, and a machine's TPM.

    Attributes:
        folder: its files'.
        ak_name: of the TPM that it means.
    """

    folder: Path
    ak_name: str

    def policy(self, *, uki: bytes = b"", runtime: str = "") -> Path:
        """A policy with a manifest of its own, by default of the image that boots here."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir()
        key = Ed25519PrivateKey.generate()
        text = manifest(measure(uki or _uki()), RELEASE).encode()
        (folder / "manifest.toml").write_bytes(text)
        (folder / "manifest.toml.sig").write_text(sign_manifest(text, key).line() + "\n")
        values = {
            "public_key": base64url_encode(key.public_key().public_bytes_raw()),
            "pcrs": list(range(24)),
            "command_line": (BUILD / "cmdline").read_text(),
            "ak_name": self.ak_name,
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
        answer = _patiently(lambda: connection.infer(self.name, self.inputs))
        assert np.array_equal(answer["y"], self.weights * self.inputs)
        return answer

    def found_in(self, data: bytes) -> set[str]:
        """Which of them stand there in clear."""
        words = {"name": self.name.encode(), "weights": self.weights.tobytes(), "inputs": self.inputs.tobytes()}
        return {kind for kind, word in words.items() if word in data}


@pytest.fixture(scope="module")
def machine() -> str:
    """The folder of a new machine, whose TPM nobody has used."""
    return _new_machine("machine")


@pytest.fixture(scope="module")
def other_machine() -> str:
    return _new_machine("other")


@pytest.fixture(scope="module")
def client(machine: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(folder=tmp_path_factory.mktemp("client"), ak_name=_ak_name(machine))


@pytest.fixture(scope="module")
def canary() -> Canary:
    random = np.random.default_rng(5)
    weights, inputs = random.random((2, 64), np.float32)
    return Canary(name=f"canary-{secrets.token_hex(8)}", weights=weights, inputs=inputs)


@pytest.fixture(scope="module")
def debug_disk() -> str:
    """The image with another word in the command line inside its UKI."""
    return _changed("debug.img", OLD_WORD, NEW_WORD)


def _patiently(call: Callable[[], T]) -> T:
    """A model's process starts slowly in an emulator, at its upload too, and the server says to try again."""
    for _ in range(START_ATTEMPTS):
        with suppress(ModelNotReadyError):
            return call()
        time.sleep(1)
    raise AssertionError("the model does not start")


def _new_machine(name: str) -> str:
    shutil.rmtree(BUILD / name, ignore_errors=True)
    manufacture(TOOLS, name)
    return name


def _ak_name(machine: str) -> str:
    state = BUILD / machine / "tpm"
    tpm = SoftwareTpm(state)
    try:
        item = TpmAttester(tpm, state / "no-log").attest(bytes(64))
    finally:
        tpm.stop()
    return verifier.verify(item, 0.0, Checks()).ak_name.hex()


def _uki() -> bytes:
    return (BUILD / "uki.efi").read_bytes()


@contextmanager
def _serving(disk: str, machine: str, config: bytes = CONFIGURATION) -> Iterator[Machine]:
    began = time.monotonic()
    with booted(TOOLS, disk, machine, port=PORT, config=config) as guest:
        guest.wait(lambda log: READY in log or ENDED in log, BOOT_S)
        assert READY in guest.log(), guest.log()[-4000:]
        print(f"\n{disk}: serves after {time.monotonic() - began:.0f} s")
        yield guest


def _changed(name: str, old: bytes, new: bytes) -> str:
    """A copy of the disk, with one place changed that is there once."""
    data = (BUILD / "disk.img").read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    (BUILD / name).write_bytes(data.replace(old, new))
    return name


def _flipped(name: str, file: str, offset: int) -> str:
    """A copy of the disk, with one bit changed in this block of a partition's file."""
    with (BUILD / file).open("rb") as whole:
        whole.seek(offset)
        block = whole.read(4096)
    return _changed(name, block, bytes([block[0] ^ 1]) + block[1:])


def _answer(nonce: bytes) -> AttestationDocument:
    """What the guest's attestation endpoint says."""
    context = ssl._create_unverified_context()  # noqa: S323  # attestation is what is believed
    connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=60, context=context)
    try:
        connection.request("POST", ATTESTATION_PATH, compact_json({"nonce": base64url_encode(nonce)}))
        return parse_document(connection.getresponse().read())
    finally:
        connection.close()


def _accept(document: AttestationDocument, policy: Path, nonce: bytes) -> None:
    asked = {"service": DEFAULT_SERVICE, "mode": Mode.FRESH, "nonce": nonce}
    accept_attestation(document, load_policy(policy), **asked, now=time.time(), elapsed_s=0.0)  # type: ignore[arg-type]


@pytest.fixture(scope="class")
def first_boot(machine: str, client: Client) -> Iterator[None]:
    assert client.ak_name  # which was read before the TPM is in use
    with _serving("disk.img", machine):
        yield
    shutil.copy(BUILD / machine / "store.img", BUILD / machine / "store-1.img")
    shutil.copy(BUILD / machine / "serial.log", BUILD / machine / "serial-1.log")


@pytest.fixture(scope="class")
def second_boot(machine: str) -> Iterator[None]:
    with _serving("disk.img", machine, OTHER_CONFIGURATION):
        yield


def test_a_package_that_is_not_offered_any_more_says_what_to_do(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{PORT}/a_1_amd64.deb"  # where nobody answers yet
    entry = Entry(kind="deb", group="root", name="a", version="1", sha256="ab" * 32, uri=uri)
    with pytest.raises(ImageError, match="run `make image-lock`"):
        fetch([entry], tmp_path, "3.13")


@pytest.mark.usefixtures("first_boot")
class TestFirstBoot:
    def test_what_was_predicted_is_what_is_quoted_and_a_model_can_be_used(
        self, client: Client, canary: Canary, tmp_path: Path
    ) -> None:
        with blindai.connect(URL, policy=client.policy()) as connection:
            assert connection.attestation.level == "fresh"
            assert not connection.attestation.simulated
            (claims,) = connection.attestation.claims
            assert isinstance(claims, verifier.TpmClaims)
            for index, value in measure(_uki()).pcrs.items():
                print(f"PCR {index}: predicted {value.hex()}, quoted {claims.pcrs[index].hex()}")
                assert claims.pcrs[index] == value
            model = canary.model(tmp_path / "m.onnx")
            _patiently(lambda: connection.upload_model(model, name=canary.name))
            receipt = canary.use(connection).receipt
            assert receipt.model is not None
            assert receipt.model.name == canary.name

    def test_evidence_for_another_nonce_is_stale(self, client: Client) -> None:
        nonce, policy = secrets.token_bytes(32), client.policy()
        answer = _answer(nonce)
        _accept(answer, policy, nonce)
        with pytest.raises(StaleEvidenceError) as refusal:
            _accept(answer, policy, secrets.token_bytes(32))
        assert refusal.value.finding_code == "binding.nonce"

    def test_a_quote_shown_with_another_keyset_is_refused(self, client: Client) -> None:
        nonce = secrets.token_bytes(32)
        quoted, shown = _answer(secrets.token_bytes(32)), _answer(nonce)
        with pytest.raises(RejectedEvidenceError) as refusal:
            _accept(replace(shown, evidence=quoted.evidence), client.policy(), nonce)
        assert refusal.value.finding_code == "binding.report_data"

    def test_another_tpm_is_refused(self, client: Client, other_machine: str) -> None:
        elsewhere = replace(client, ak_name=_ak_name(other_machine))
        assert elsewhere.refused() == {"tpm.ak_certified", "tpm.ak_name"}

    def test_another_build_is_refused(self, client: Client) -> None:
        """The manifest is another image's, which differs in its command line."""
        other = _uki().replace(OLD_WORD, NEW_WORD)
        assert client.refused(uki=other) == {"tpm.pcrs", "tpm.boot_applications"}

    def test_another_start_up_set_is_refused(self, client: Client) -> None:
        assert client.refused(runtime=f', models = "sha256:{"5a" * 32}"') == {"runtime.models"}


@pytest.mark.usefixtures("second_boot")
class TestSecondBoot:
    """With another configuration."""

    def test_the_model_is_still_there(self, client: Client, canary: Canary, tmp_path: Path) -> None:
        with blindai.connect(URL, policy=client.policy()) as connection:
            canary.use(connection)
            model = tiny_models.times(tmp_path / "m.onnx", 3)
            _patiently(lambda: connection.upload_model(model, name="later"))

    def test_another_configuration_is_refused(self, client: Client) -> None:
        """`limits.max_models` is what it says in words; the whole of it stands in one digest."""
        assert client.refused(runtime=", limits = { max_models = 9 }") == {"runtime.limits.max_models"}


def test_nothing_of_a_model_stands_in_clear_on_disk_or_console(machine: str, canary: Canary, tmp_path: Path) -> None:
    for name in ("store-1.img", "store.img", "serial-1.log", "serial.log"):
        assert canary.found_in((BUILD / machine / name).read_bytes()) == set(), name
    plain = BUILD / "plain"  # the control: the same search, of a store that is not sealed
    shutil.rmtree(plain, ignore_errors=True)
    plain.mkdir()
    shutil.copy(canary.model(tmp_path / "m.onnx"), plain / canary.name)
    (plain / "inputs").write_bytes(canary.inputs.tobytes())
    TOOLS.run("sh", "-ec", "rm -f plain.img; mkfs.ext4 -q -d plain plain.img 8M")
    assert canary.found_in((BUILD / "plain.img").read_bytes()) == {"name", "weights", "inputs"}


def test_an_older_store_is_not_served(machine: str) -> None:
    """That of after the first boot, which has a model less."""
    folder = BUILD / machine
    shutil.copy(folder / "store.img", folder / "store-2.img")
    shutil.copy(folder / "store-1.img", folder / "store.img")
    with booted(TOOLS, "disk.img", machine, port=PORT, config=CONFIGURATION) as guest:
        log = guest.wait(lambda log: ENDED in log or READY in log, BOOT_S)
    assert "it was put back from an older copy, removed, or belongs to another TEE" in log
    (folder / "store-2.img").rename(folder / "store.img")


def test_an_image_with_another_command_line_cannot_unseal(machine: str, debug_disk: str) -> None:
    with booted(TOOLS, debug_disk, machine, port=PORT, config=CONFIGURATION) as guest:
        log = guest.wait(lambda log: ENDED in log or READY in log, BOOT_S)
    assert "PCRs 4, 7, 11, 12 are not what they were: something else has booted" in log


def test_an_image_with_another_command_line_is_refused(client: Client, other_machine: str, debug_disk: str) -> None:
    """On a machine that has sealed nothing; the word is one that opens a shell, so it is a debug build too."""
    here = replace(client, ak_name=_ak_name(other_machine))
    with _serving(debug_disk, other_machine):
        found = here.refused()
    boot = ("boot_applications", "command_line", "boot_files", "debug_arguments")
    assert found == {"tpm.pcrs", *(f"tpm.{check}" for check in boot)}


@pytest.mark.parametrize(
    ("file", "offset", "words"),
    [("root.erofs", 0, "data block 0 is corrupted"), ("root.verity", 4096, "metadata block 1 is corrupted")],
    ids=["root", "hash tree"],
)
def test_a_changed_partition_is_not_started(machine: str, file: str, offset: int, words: str) -> None:
    disk = _flipped("flipped.img", file, offset)
    with booted(TOOLS, disk, machine, port=PORT) as guest:
        log = guest.wait(lambda log: "Kernel panic" in log, BOOT_S)
    assert words in log
    assert "start: " not in log
