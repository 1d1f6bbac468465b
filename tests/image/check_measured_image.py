"""The measured image boots, and a client that knows only its signed manifest trusts it: `make test-image`.

QEMU's emulator, OVMF and a software TPM: nothing here is secret from this machine, but what is measured is what booted.
The TPM has a certificate of a made-up manufacturer, and a client asks it by credential activation whose key attests.
A boot takes a minute or two, so that tests of one guest stand in one class; they run in this order.
Not part of `make test`: its name is not one that pytest looks for.
"""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from archive import fetch
from boot import booted, enrol, sign
from e2e import tiny_models
from image.measured import (
    BOOT_S,
    BUILD,
    CONFIGURATION,
    ENDED,
    NOT_ASKED,
    PORT,
    READY,
    TOOLS,
    URL,
    Canary,
    Client,
    ask,
    built_uki,
    changed,
    flipped,
    maker_root,
    new_machine,
    patiently,
    serving,
)
from locking import Entry, ImageError
from predict import measure

import blindai
from blindai.attestation.binding import Mode
from blindai.attestation.tee import tpm as verifier
from blindai.channel.attested import accept_attestation
from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.errors import RejectedEvidenceError, StaleEvidenceError
from blindai.policies import load_policy
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from boot import Machine

    from blindai.attestation.evidence import AttestationDocument

OTHER_CONFIGURATION = b"max_models = 8\n"
OLD_WORD, NEW_WORD = b" slab_nomerge ", b" emergency    "  # of the command line: the new one opens a shell, elsewhere
FOREIGN_MAKER = {"tpm.ek_chain_root", "tpm.activation", "tpm.ak_certified"}


@pytest.fixture(scope="module")
def machine() -> str:
    return new_machine("machine")


@pytest.fixture(scope="module")
def other_machine() -> str:
    """Of another maker."""
    return new_machine("other")


@pytest.fixture(scope="module")
def client(machine: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(folder=tmp_path_factory.mktemp("client"), ek_roots=(maker_root(machine),))


@pytest.fixture(scope="module")
def canary() -> Canary:
    random = np.random.default_rng()
    weights, inputs = random.random((2, 64), np.float32)
    return Canary(name=f"canary-{secrets.token_hex(8)}", weights=weights, inputs=inputs)


@pytest.fixture(scope="module")
def debug_disk() -> str:
    """The image with another word in the command line inside its UKI."""
    return changed("debug.img", OLD_WORD, NEW_WORD)


@pytest.fixture(scope="module")
def notes() -> dict[str, str]:
    """What a test writes down for one of a later boot."""
    return {}


@pytest.fixture(scope="class")
def first_boot(machine: str) -> Iterator[Machine]:
    with serving("disk.img", machine) as guest:
        yield guest
    for name, kept in (("store.img", "store-1.img"), ("serial.log", "serial-1.log")):
        shutil.copy(BUILD / machine / name, BUILD / machine / kept)


@pytest.fixture(scope="class")
def second_boot(machine: str) -> Iterator[Machine]:
    with serving("disk.img", machine, OTHER_CONFIGURATION) as guest:
        yield guest


def _accept(document: AttestationDocument, client: Client, nonce: bytes) -> None:
    policy = load_policy(client.policy(certified=NOT_ASKED))
    asked = {"service": DEFAULT_SERVICE, "mode": Mode.FRESH, "nonce": nonce}
    accept_attestation(document, policy, **asked, now=time.time(), elapsed_s=0.0)  # type: ignore[arg-type]


def test_a_package_that_is_not_offered_any_more_says_what_to_do(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{PORT}/a_1_amd64.deb"  # where nobody answers yet
    entry = Entry(kind="deb", group="root", name="a", version="1", sha256="ab" * 32, uri=uri)
    with pytest.raises(ImageError, match="run `make image-lock`"):
        fetch([entry], tmp_path, "3.13")


class TestFirstBoot:
    def test_what_was_predicted_is_what_is_quoted_and_a_model_can_be_used(
        self, first_boot: Machine, client: Client, canary: Canary, tmp_path: Path
    ) -> None:
        with blindai.connect(URL, policy=client.policy()) as connection:
            assert connection.attestation.level == "fresh"
            assert not connection.attestation.simulated
            shown = {one.code: one.found for one in connection.attestation.findings}
            assert shown["tpm.ak_certified"] == "activation"
            (claims,) = connection.attestation.claims
            assert isinstance(claims, verifier.TpmClaims)
            for index, value in measure(built_uki()).pcrs.items():
                print(f"PCR {index}: predicted {value.hex()}, quoted {claims.pcrs[index].hex()}")
                assert claims.pcrs[index] == value
            model = canary.model(tmp_path / "m.onnx")
            patiently(lambda: connection.upload_model(model, name=canary.name))
            receipt = canary.use(connection).receipt
            assert receipt.model is not None
            assert receipt.model.name == canary.name
            # The control of the search below: an emulator sees the guest's memory, where all of it is.
            assert canary.found_in(first_boot.memory()) == {"name", "weights", "inputs"}

    @pytest.mark.usefixtures("first_boot")
    def test_its_configuration_stands_in_its_keyset(self, client: Client, notes: dict[str, str]) -> None:
        with blindai.connect(URL, policy=client.policy()) as connection:
            runtime = connection.attestation.keyset.runtime
        assert runtime.limits.max_models == 9
        notes["configuration"] = base64url_encode(runtime.configuration)

    @pytest.mark.usefixtures("first_boot")
    def test_evidence_for_another_nonce_is_stale(self, client: Client) -> None:
        nonce = secrets.token_bytes(32)
        answer = ask(nonce)
        _accept(answer, client, nonce)
        with pytest.raises(StaleEvidenceError) as refusal:
            _accept(answer, client, secrets.token_bytes(32))
        assert refusal.value.finding_code == "binding.nonce"

    @pytest.mark.usefixtures("first_boot")
    def test_a_quote_shown_with_another_keyset_is_refused(self, client: Client) -> None:
        nonce = secrets.token_bytes(32)
        quoted, shown = ask(secrets.token_bytes(32)), ask(nonce)
        with pytest.raises(RejectedEvidenceError) as refusal:
            _accept(replace(shown, evidence=quoted.evidence), client, nonce)
        assert refusal.value.finding_code == "binding.report_data"

    @pytest.mark.usefixtures("first_boot")
    def test_a_tpm_of_another_maker_is_refused(self, client: Client, other_machine: str) -> None:
        elsewhere = replace(client, ek_roots=(maker_root(other_machine),))
        assert elsewhere.refused() == FOREIGN_MAKER

    @pytest.mark.usefixtures("first_boot")
    def test_who_names_no_root_of_a_test_trusts_no_tpm_of_it(self, client: Client) -> None:
        """As a production policy: only the roots that are pinned in the code count."""
        assert replace(client, ek_roots=()).refused() == FOREIGN_MAKER

    @pytest.mark.usefixtures("first_boot")
    def test_another_build_is_refused(self, client: Client) -> None:
        """The manifest is another image's, which differs in its command line."""
        other = built_uki().replace(OLD_WORD, NEW_WORD)
        assert client.refused(uki=other) == {"tpm.pcrs", "tpm.boot_applications"}

    @pytest.mark.usefixtures("first_boot")
    def test_another_start_up_set_is_refused(self, client: Client) -> None:
        assert client.refused(runtime=f', models = "sha256:{"5a" * 32}"') == {"runtime.models"}


@pytest.mark.usefixtures("second_boot")
class TestSecondBoot:
    """With another configuration."""

    def test_the_model_is_still_there(self, client: Client, canary: Canary, tmp_path: Path) -> None:
        with blindai.connect(URL, policy=client.policy()) as connection:
            canary.use(connection)
            model = tiny_models.times(tmp_path / "m.onnx", 3)
            patiently(lambda: connection.upload_model(model, name="later"))

    def test_another_configuration_is_refused(self, client: Client, notes: dict[str, str]) -> None:
        """The whole of it stands in one digest; this setting in words too."""
        demands = f', configuration = "{notes["configuration"]}", limits = {{ max_models = 9 }}'
        assert client.refused(runtime=demands) == {"runtime.configuration", "runtime.limits.max_models"}


def test_nothing_of_a_model_stands_in_clear_on_disk_or_console(machine: str, canary: Canary, tmp_path: Path) -> None:
    files = [path for path in (BUILD / machine).rglob("*") if path.is_file()]
    assert {"store-1.img", "store.img", "serial-1.log", "serial.log", "vars.fd"} <= {path.name for path in files}
    for path in files:
        assert canary.found_in(path.read_bytes()) == set(), path.name
    plain = BUILD / "plain"  # another control: the same search, of a store that is not sealed
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
    here = replace(client, ek_roots=(maker_root(other_machine),))
    with serving(debug_disk, other_machine):
        found = here.refused()
    boot = ("boot_applications", "command_line", "boot_files", "debug_arguments")
    assert found == {"tpm.pcrs", *(f"tpm.{check}" for check in boot)}


@pytest.mark.parametrize(
    ("file", "offset", "words"),
    [("root.erofs", 0, "data block 0 is corrupted"), ("root.verity", 4096, "metadata block 1 is corrupted")],
    ids=["root", "hash tree"],
)
def test_a_changed_partition_is_not_started(machine: str, file: str, offset: int, words: str) -> None:
    disk = flipped("flipped.img", file, offset)
    with booted(TOOLS, disk, machine, port=PORT) as guest:
        log = guest.wait(lambda log: "Kernel panic" in log, BOOT_S)
    assert words in log
    assert "start: " not in log


def test_secure_boot_starts_only_what_is_signed(other_machine: str) -> None:
    """The same firmware and key start the same image once it is signed."""
    enrol(TOOLS, other_machine)
    with booted(TOOLS, "disk.img", other_machine, port=PORT, secure_boot=True) as guest:
        log = guest.wait(lambda log: "Access Denied" in log, BOOT_S)
    assert "start: " not in log
    sign(TOOLS, "disk.img", other_machine, "signed.img")
    with booted(TOOLS, "signed.img", other_machine, port=PORT, secure_boot=True) as guest:
        guest.wait(lambda log: "start: pcr 23" in log, BOOT_S)
