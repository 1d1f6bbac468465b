"""A store's key in a real TPM (swtpm): who gets it, and what is noticed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from server.test_model_store import content, upload
from tpm.software_tpm import SoftwareTpm

from blindai.attester.tpm2 import commands
from blindai.attester.tpm2.device import TpmFile, TpmRefusedError, open_tpm, run
from blindai.attester.tpm2.sealer import KEY_NAME, TpmSealer, _parse
from blindai.errors import AttesterError, UnsealError
from blindai.server.kept_store import INDEX_NAME, KeptStore
from blindai.server.model_store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.swtpm
PCRS = (4, 7, 11, 12)


def open_store(folder: Path, tpm: Callable[[bytes], bytes]) -> ModelStore:
    return ModelStore(folder, kept=KeptStore(folder, TpmSealer(folder, tpm)))


def test_models_are_there_after_power_off_and_a_boot_of_the_same(tpm: SoftwareTpm, tmp_path: Path) -> None:
    tpm.extend(11, b"k" * 32)
    folder = tmp_path / "kept"
    store = open_store(folder, tpm)
    upload(store, "canary-name", b"canary-weights")
    store.close()
    tpm.stop()
    tpm.start()
    tpm.extend(11, b"k" * 32)
    again = open_store(folder, tpm)
    assert content(again, again.resolve("canary-name")) == {"m.onnx": b"canary-weights"}
    again.close()
    assert b"canary" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_another_kernel_gets_no_key(tpm: SoftwareTpm, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    store = open_store(folder, tpm)
    upload(store, "a", b"weights")
    store.close()
    tpm.extend(11, b"another" + bytes(25))
    with pytest.raises(UnsealError, match="PCRs 4, 7, 11, 12 are not what they were: something else has booted"):
        open_store(folder, tpm)


def test_another_kernel_cannot_count(tpm: SoftwareTpm, tmp_path: Path) -> None:
    sealer = TpmSealer(tmp_path, tpm)
    sealer.root_key()
    assert sealer.generation() == 0
    sealer.advance(1)
    assert sealer.generation() == 1
    tpm.extend(4, bytes(32))
    with pytest.raises(UnsealError) as refusal:
        sealer.advance(2)
    assert isinstance(refusal.value.__cause__, TpmRefusedError)
    assert refusal.value.__cause__.is_policy
    assert sealer.generation() == 1


def test_a_pcr_that_is_not_named_may_change(tpm: SoftwareTpm, tmp_path: Path) -> None:
    key = TpmSealer(tmp_path, tpm).root_key()
    tpm.extend(1, bytes(32))
    assert TpmSealer(tmp_path, tpm).root_key() == key


def test_another_tpm_gets_no_key(tpm: SoftwareTpm, tmp_path: Path) -> None:
    TpmSealer(tmp_path, tpm).root_key()
    other = SoftwareTpm(tmp_path / "other")
    try:
        with pytest.raises(UnsealError, match="sealed by another TPM"):
            TpmSealer(tmp_path, other).root_key()
    finally:
        other.stop()


def test_a_copy_of_the_folder_put_back_is_noticed(tpm: SoftwareTpm, tmp_path: Path) -> None:
    folder, copy = tmp_path / "kept", tmp_path / "copy"
    store = open_store(folder, tpm)
    upload(store, "revoked", b"old")
    store.close()
    shutil.copytree(folder, copy)
    again = open_store(folder, tpm)
    again.delete("revoked")
    again.close()
    shutil.rmtree(folder)
    copy.rename(folder)
    with pytest.raises(UnsealError, match="generation 2, and the TEE's counter says 4"):
        open_store(folder, tpm)


def test_a_counter_that_was_removed_and_made_anew_does_not_hide_an_old_copy(tpm: SoftwareTpm, tmp_path: Path) -> None:
    """The owner can do that; a new counter begins beyond every one that this TPM ever had."""
    folder = tmp_path / "kept"
    store = open_store(folder, tpm)
    upload(store, "a", b"one")
    old = (folder / INDEX_NAME).read_bytes()
    upload(store, "a", b"two")
    store.close()
    sealer = TpmSealer(folder, tpm)
    sealer.root_key()
    index = sealer._counter
    undefine_counter(tpm, index)
    policy = commands.pcr_policy(PCRS, commands.read_pcrs(tpm, PCRS))
    commands.define_counter(tpm, index, policy)
    with commands.pcr_session(tpm, PCRS, bytes) as session:
        commands.count_up(tpm, index, session)
    (folder / INDEX_NAME).write_bytes(old)
    with pytest.raises(UnsealError, match="generation 2, and the TEE's counter says"):
        open_store(folder, tpm)


def test_a_key_that_something_else_has_made_is_refused(tpm: SoftwareTpm, tmp_path: Path) -> None:
    """What the operator boots can seal a key that it knows for what it will boot next: models would lie open to it."""
    sealer = TpmSealer(tmp_path, tpm)
    key = sealer.root_key()
    genuine = (tmp_path / KEY_NAME).read_bytes()
    policy = commands.pcr_policy(PCRS, commands.read_pcrs(tpm, PCRS))
    tpm.extend(11, b"the operator's own" + bytes(14))
    secret = b"known to the operator".ljust(32) + commands.u32(sealer._counter) + sealer._before.to_bytes(8, "big")
    planted = []
    for selection in (PCRS, (), (16,)):
        with commands.storage_key(tpm) as parent:
            sealed = commands.seal(tpm, parent, secret, policy=policy, pcrs=selection)
        planted.append(sealed)
    tpm.stop()
    tpm.start()
    genuine_parts = _parse(genuine)
    planted.append(replace(planted[0], creation=genuine_parts.creation, ticket=genuine_parts.ticket))
    for sealed in planted:
        parts = (sealed.private, sealed.public, sealed.creation, sealed.ticket)
        (tmp_path / KEY_NAME).write_bytes(b"BLDATPM1" + b"".join(map(commands.sized, parts)))
        with pytest.raises(UnsealError, match="does not open"):
            TpmSealer(tmp_path, tpm).root_key()
    (tmp_path / KEY_NAME).write_bytes(genuine)
    assert TpmSealer(tmp_path, tpm).root_key() == key


def test_bytes_that_the_owner_put_in_the_counters_place_are_refused(tpm: SoftwareTpm, tmp_path: Path) -> None:
    """They would say whatever makes an old index the last one."""
    folder = tmp_path / "kept"
    store = open_store(folder, tpm)
    upload(store, "revoked", b"old")
    old = (folder / INDEX_NAME).read_bytes()
    sealer = TpmSealer(folder, tpm)
    sealer.root_key()
    index, says = sealer._counter, commands.read_counter(tpm, sealer._counter)
    store.delete("revoked")
    store.close()
    undefine_counter(tpm, index)
    attributes = 1 << 1 | 1 << 2 | 1 << 17 | 1 << 18  # the owner and whoever knows its empty password read and write
    public = commands.u32(index) + commands.u16(0x000B) + commands.u32(attributes) + commands.sized(b"") + b"\0\x08"
    body = commands.sized(b"") + commands.sized(public)
    run(tpm, 0x12A, "bytes", handles=(commands.RH_OWNER,), authorisation=commands.password(), parameters=body)
    value = commands.sized(says.to_bytes(8, "big")) + commands.u16(0)
    run(tpm, 0x137, "writing", handles=(index, index), authorisation=commands.password(), parameters=value)
    assert commands.read_counter(tpm, index) == says
    (folder / INDEX_NAME).write_bytes(old)
    with pytest.raises(UnsealError, match="not the one that was made for this store"):
        open_store(folder, tpm)


def undefine_counter(tpm: SoftwareTpm, index: int) -> None:
    """As the owner can (TPM2_NV_UndefineSpace)."""
    run(tpm, 0x122, "it", handles=(commands.RH_OWNER, index), authorisation=commands.password())


def test_every_changed_byte_of_the_sealed_key_is_refused(tpm: SoftwareTpm, tmp_path: Path) -> None:
    key = TpmSealer(tmp_path, tpm).root_key()
    path = tmp_path / KEY_NAME
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UnsealError):
            TpmSealer(tmp_path, tpm).root_key()
        refused += 1
    for cut in (b"", whole[:8], whole[:-1], whole + b"\0"):
        path.write_bytes(cut)
        with pytest.raises(UnsealError):
            TpmSealer(tmp_path, tpm).root_key()
    path.write_bytes(whole)
    assert TpmSealer(tmp_path, tpm).root_key() == key
    print(f"sealed key: {refused} bytes, each changed and refused")


def test_nothing_is_left_in_the_tpm(tpm: SoftwareTpm, tmp_path: Path) -> None:
    """Without a resource manager there is room for three objects: a leak shows at once."""
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        sealer = TpmSealer(folder, tpm)
        sealer.root_key()
        sealer.advance(1)


def test_where_there_is_no_tpm_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(AttesterError, match="there is no TPM at"):
        TpmFile(str(tmp_path / "tpmrm0"))
    with pytest.raises(AttesterError, match="there is no TPM at"):
        open_tpm(f"unix:{tmp_path / 'tpm.sock'}")
