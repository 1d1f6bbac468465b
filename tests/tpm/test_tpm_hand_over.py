"""A store that goes to another measurement, sealed by a real TPM (swtpm): whose models go, and who gets no store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server.test_model_store import content, finish

from blindai.attestation.manifest import sign_manifest
from blindai.attester.tpm2 import commands
from blindai.attester.tpm2.sealer import BOOT_PCRS, KEY_NAME, TpmSealer
from blindai.bundle import UploadHeader
from blindai.errors import InvalidManifestError, ModelNotFoundError, UnsealError
from blindai.server.hand_over import FOLDER, HandOver, read_plan
from blindai.server.kept_store import INDEX_NAME, KeptStore
from blindai.server.model_store import ModelStore
from blindai.server.sharing import Share

if TYPE_CHECKING:
    from collections.abc import Callable

    from tpm.software_tpm import SoftwareTpm

pytestmark = pytest.mark.swtpm
OPERATOR, OWNER, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
OLD, NEW, STRANGE = b"old" + bytes(29), b"new" + bytes(29), b"strange" + bytes(25)


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class Machine:
    """One computer: what boots on it, and the manifests of what may."""

    def __init__(self, tpm: SoftwareTpm, folder: Path) -> None:
        self.tpm, self.home, self.store = tpm, folder, folder / "kept"
        self.new = self.manifest("new", NEW, OPERATOR, OWNER)
        self.old = self.manifest("old", OLD, OPERATOR)
        self.boot(OLD)

    def boot(self, what: bytes) -> None:
        """Power off and on; PCR 11 says what was started."""
        self.tpm.stop()
        self.tpm.start()
        self.tpm.extend(11, what)

    def manifest(self, name: str, what: bytes, *signers: Ed25519PrivateKey, release: str = "9.0.0") -> str:
        """A signed manifest of what PCRs are when `what` has booted."""
        self.boot(what)
        values = zip(BOOT_PCRS, commands.read_pcrs(self.tpm, BOOT_PCRS), strict=True)
        pcrs = "\n".join(f'"{index}" = ["{value.hex()}"]' for index, value in values)
        path = self.home / f"{name}.toml"
        path.write_text(f'version = 1\nname = "blindai"\nrelease = "{release}"\n\n[tee.tpm.pcrs]\n{pcrs}\n')
        lines = [sign_manifest(path.read_bytes(), key).line() + "\n" for key in signers]
        path.with_name(path.name + ".sig").write_text("".join(lines))
        return str(path)

    def open(self, *, by: str | None = None, to: str | None = None, sealer: TpmSealer | None = None) -> ModelStore:
        """The server's store, with these settings."""
        sealer = sealer or TpmSealer(self.store, self.tpm)
        plan = read_plan(sealer, by, to, frozenset({public(OPERATOR)}))
        return ModelStore(self.store, kept=KeptStore(self.store, sealer, handed_over=plan))


@pytest.fixture
def machine(tpm: SoftwareTpm, tmp_path: Path) -> Machine:
    return Machine(tpm, tmp_path)


def upload(store: ModelStore, name: str, data: bytes, owner: Ed25519PrivateKey | None) -> None:
    key = None if owner is None else public(owner)
    header = UploadHeader(version=None, files=(("m.onnx", len(data)),), default_shape=None, load=False, owner_key=key)
    incoming = store.begin_upload(name, header)
    incoming.write(data)
    finish(incoming)


def handed_over(machine: Machine) -> None:
    store = machine.open(to=machine.new)
    upload(store, "mine", b"weights", OWNER)
    upload(store, "theirs", b"other weights", OTHER)
    upload(store, "nobodys", b"third weights", None)
    for name in ("mine", "theirs"):
        store.share("public", name, Share(run=frozenset({"them"}), visible=frozenset()))
    store.close()


def test_the_next_release_has_the_models_whose_owner_signed_and_no_other(machine: Machine) -> None:
    handed_over(machine)
    for _ in range(2):
        machine.boot(NEW)
        store = machine.open(by=machine.old)
        assert [model.name for model in store.models()] == ["mine"]
        assert content(store, store.resolve("mine")) == {"m.onnx": b"weights"}
        assert store.resolve("mine").owner_key == public(OWNER)
        assert [(owner, name) for owner, name, _ in store.sharing.decisions()] == [("public", "mine")]
        store.close()
    machine.boot(NEW)
    store = machine.open()
    upload(store, "mine", b"more", OWNER)
    store.close()
    assert not (machine.store / FOLDER).exists()
    assert len(list((machine.store / "files").iterdir())) == 2


def test_the_release_before_has_no_store_from_then_on(machine: Machine) -> None:
    handed_over(machine)
    copy = machine.home / "copy"
    shutil.copytree(machine.store, copy)
    machine.boot(NEW)
    machine.open(by=machine.old).close()
    shutil.rmtree(machine.store)
    copy.rename(machine.store)
    machine.boot(OLD)
    with pytest.raises(UnsealError, match="counter"):
        machine.open()


def test_what_was_handed_over_is_taken_over_once(machine: Machine) -> None:
    """The operator's copy of the folder would bring back what was deleted since."""
    handed_over(machine)
    copy = machine.home / "copy"
    shutil.copytree(machine.store, copy)
    machine.boot(NEW)
    store = machine.open(by=machine.old)
    store.delete("mine")
    store.close()
    shutil.copytree(copy / FOLDER, machine.store / FOLDER)
    machine.boot(NEW)
    store = machine.open(by=machine.old)
    assert store.models() == ()
    store.close()
    shutil.rmtree(machine.store)
    copy.rename(machine.store)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="counter"):
        machine.open(by=machine.old)


def test_a_store_that_changed_after_it_was_handed_over_is_refused(machine: Machine) -> None:
    handed_over(machine)
    machine.boot(OLD)
    store = machine.open()
    store.delete("mine")
    store.close()
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="that store was changed afterwards") as refusal:
        machine.open(by=machine.old)
    assert "it hands over as it starts" in refusal.value.hint
    machine.boot(OLD)
    machine.open(to=machine.new).close()
    machine.boot(NEW)
    store = machine.open(by=machine.old)
    assert store.models() == ()
    store.close()


def test_other_software_takes_nothing(machine: Machine) -> None:
    handed_over(machine)
    machine.boot(STRANGE)
    with pytest.raises(UnsealError, match="something else has booted"):
        machine.open(by=machine.old)
    machine.boot(NEW)
    machine.open(by=machine.old).close()


def test_other_software_hands_nothing_over(machine: Machine) -> None:
    """Whoever uses the TPM can seal a key that it knows for the next release, with models under it."""
    strange = machine.manifest("strange", STRANGE, OTHER)
    handed_over_by_strange = machine.open(to=machine.new)
    upload(handed_over_by_strange, "planted", b"p", OWNER)
    handed_over_by_strange.close()  # still booted: `strange`
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="made by something else"):
        machine.open(by=machine.old)
    with pytest.raises(InvalidManifestError, match="no key of `upgrade_signers` has signed it"):
        machine.open(by=strange)


@pytest.mark.parametrize("damage", ["index", "key", "no index", "no key"])
def test_what_is_damaged_is_refused_and_nothing_is_removed(machine: Machine, damage: str) -> None:
    handed_over(machine)
    path = machine.store / FOLDER / damage.removeprefix("no ")
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    if damage.startswith("no "):
        path.unlink()
    machine.boot(NEW)
    with pytest.raises(UnsealError):
        machine.open(by=machine.old)
    path.write_bytes(good)
    store = machine.open(by=machine.old)
    assert [model.name for model in store.models()] == ["mine"]
    store.close()


def test_a_link_is_not_followed(machine: Machine) -> None:
    handed_over(machine)
    elsewhere = machine.home / "elsewhere"
    (machine.store / FOLDER).rename(elsewhere)
    (machine.store / FOLDER).symlink_to(elsewhere)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="symbolic link"):
        machine.open(by=machine.old)
    assert {path.name for path in elsewhere.iterdir()} == {"key", "index"}


def test_a_link_is_not_written_through(machine: Machine) -> None:
    elsewhere = machine.home / "elsewhere"
    elsewhere.mkdir()
    store = machine.open(to=machine.new)
    (machine.store / FOLDER).symlink_to(elsewhere)
    with pytest.raises(UnsealError, match="symbolic link"):
        store.close()
    assert list(elsewhere.iterdir()) == []


class ForgetfulSealer(TpmSealer):
    """One whose TPM counts, and whose answers are lost."""

    lost = 0

    def advance(self, generation: int) -> None:
        super().advance(generation)
        if self.lost:
            self.lost -= 1
            raise UnsealError("no answer")


def test_after_a_change_that_failed_what_holds_is_handed_over(machine: Machine) -> None:
    sealer = ForgetfulSealer(machine.store, machine.tpm)
    store = machine.open(to=machine.new, sealer=sealer)
    upload(store, "mine", b"weights", OWNER)
    sealer.lost = 2  # the change's, and that of what puts back what held
    with pytest.raises(UnsealError, match="no answer"):
        upload(store, "more", b"more", OWNER)
    store.close()
    machine.boot(NEW)
    store = machine.open(by=machine.old)
    assert [model.name for model in store.models()] == ["mine"]
    store.close()


def test_without_the_setting_the_next_release_does_not_look(machine: Machine) -> None:
    handed_over(machine)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="something else has booted"):
        machine.open()
    machine.boot(OLD)
    store = machine.open()
    assert len(store.models()) == 3
    store.close()


class DyingSealer(TpmSealer):
    """One whose server is killed at one of the steps of a take-over, before or after it."""

    def __init__(self, folder: Path, send: Callable[[bytes], bytes], step: str, *, after: bool) -> None:
        super().__init__(folder, send)
        self.step, self.after = step, after

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {"take", "fresh_key", "advance", "retire", "take_up"} or name != self.step:
            return found

        def dying(*given: Any) -> Any:
            if self.after:
                found(*given)
            raise KeyboardInterrupt

        return dying


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["take", "fresh_key", "advance", "retire", "take_up"])
def test_a_take_over_that_was_killed_is_done_to_its_end(machine: Machine, step: str, *, after: bool) -> None:
    handed_over(machine)
    machine.boot(NEW)
    with pytest.raises(KeyboardInterrupt):
        machine.open(by=machine.old, sealer=DyingSealer(machine.store, machine.tpm, step, after=after))
    machine.boot(NEW)
    if (step, after) in {("retire", True), ("advance", False)}:  # the old counter is gone, and the new one says nothing
        with pytest.raises(UnsealError, match="counter"):
            machine.open(by=machine.old)
        return
    store = machine.open(by=machine.old)
    assert [model.name for model in store.models()] == ["mine"]
    assert content(store, store.resolve("mine")) == {"m.onnx": b"weights"}
    store.close()
    machine.boot(NEW)
    machine.open().close()
    assert {path.name for path in machine.store.iterdir()} >= {INDEX_NAME, KEY_NAME}
    assert not (machine.store / FOLDER).exists()


def test_a_manifest_says_one_value_of_each_pcr(machine: Machine) -> None:
    path = Path(machine.new)
    text = path.read_text()
    for wrong in (text.replace('"12"', '"13"'), text.replace('"4" = ["', f'"4" = ["{"00" * 32}", "')):
        path.write_text(wrong)
        path.with_name(path.name + ".sig").write_text(sign_manifest(wrong.encode(), OPERATOR).line() + "\n")
        machine.boot(OLD)
        with pytest.raises(InvalidManifestError, match="one value of each of the TPM's PCRs 4, 7, 11, 12"):
            machine.open(to=machine.new)


def test_no_store_goes_back_to_an_older_release(machine: Machine) -> None:
    older = machine.manifest("older", NEW, OPERATOR, OWNER, release="0.9.0")
    with pytest.raises(InvalidManifestError, match="no store goes back"):
        machine.open(to=older)


def test_without_a_manifest_nothing_is_handed_over(machine: Machine) -> None:
    store = machine.open()
    upload(store, "mine", b"weights", OWNER)
    store.close()
    assert not (machine.store / FOLDER).exists()
    sealer = TpmSealer(machine.store, machine.tpm)
    assert not HandOver(sealer).is_to_come
    with pytest.raises(ModelNotFoundError):
        machine.open(by=machine.old).resolve("theirs")
