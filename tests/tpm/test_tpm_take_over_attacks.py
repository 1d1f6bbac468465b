"""An operator that kills, copies, puts back and removes counters to have a deleted model back: no spare store opens."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tpm.test_tpm_hand_over import NEW, OLD, DyingSealer, Machine, handed_over, upload

from blindai.attester.tpm2 import commands
from blindai.attester.tpm2.device import run
from blindai.attester.tpm2.sealer import KEY_NAME, TpmSealer
from blindai.errors import UnsealError
from blindai.server.hand_over import FOLDER
from blindai.server.kept_store import INDEX_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from tpm.software_tpm import SoftwareTpm

pytestmark = pytest.mark.swtpm
BEFORE_THE_OLD_COUNTER_GOES = pytest.mark.parametrize(("step", "after"), [("fresh_key", True), ("retire", False)])


@pytest.fixture
def machine(tpm: SoftwareTpm, tmp_path: Path) -> Machine:
    made = Machine(tpm, tmp_path)
    handed_over(made)
    made.boot(NEW)
    return made


def copied(machine: Machine, name: str) -> Path:
    return shutil.copytree(machine.store, machine.home / name)


def put_back(machine: Machine, copy: Path) -> None:
    shutil.rmtree(machine.store)
    shutil.copytree(copy, machine.store)


def spare_of(machine: Machine, step: str, *, after: bool) -> Path:
    """What a start leaves that is killed there."""
    with pytest.raises(KeyboardInterrupt):
        machine.open(by=machine.old, sealer=DyingSealer(machine.store, machine.tpm, step, after=after))
    return copied(machine, "spare")


def delete_mine(machine: Machine, *, by: str | None = None) -> None:
    store = machine.open(by=by)
    store.delete("mine")
    store.close()


def rename_by_hand(machine: Machine) -> None:
    (machine.store / f"{KEY_NAME}.next").rename(machine.store / KEY_NAME)
    (machine.store / FOLDER / "index.own").rename(machine.store / INDEX_NAME)
    shutil.rmtree(machine.store / FOLDER)


@BEFORE_THE_OLD_COUNTER_GOES
def test_the_old_release_goes_on_in_between(machine: Machine, step: str, *, after: bool) -> None:
    spare = spare_of(machine, step, after=after)
    machine.boot(OLD)
    delete_mine(machine)
    put_back(machine, spare)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="that store was changed afterwards"):
        machine.open(by=machine.old)


@BEFORE_THE_OLD_COUNTER_GOES
def test_and_the_operator_removes_its_counter(machine: Machine, step: str, *, after: bool) -> None:
    spare = spare_of(machine, step, after=after)
    machine.boot(OLD)
    sealer = TpmSealer(machine.store, machine.tpm)
    store = machine.open(sealer=sealer)
    store.delete("mine")
    store.close()
    commands.undefine_counter(machine.tpm, sealer._counter)
    put_back(machine, spare)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="to show its counter"):
        machine.open(by=machine.old)


@BEFORE_THE_OLD_COUNTER_GOES
def test_a_spare_is_kept_until_the_new_release_has_deleted(machine: Machine, step: str, *, after: bool) -> None:
    clean = copied(machine, "clean")
    spare = spare_of(machine, step, after=after)
    put_back(machine, clean)
    machine.boot(NEW)
    delete_mine(machine, by=machine.old)
    put_back(machine, spare)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="to show its counter"):
        machine.open(by=machine.old)


def test_a_spare_is_renamed_by_hand(machine: Machine) -> None:
    clean = copied(machine, "clean")
    spare = spare_of(machine, "retire", after=False)
    put_back(machine, clean)
    machine.boot(NEW)
    delete_mine(machine, by=machine.old)
    put_back(machine, spare)
    rename_by_hand(machine)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="generation 2, and the TEE's counter says 0"):
        machine.open()


def test_a_release_takes_over_from_itself(machine: Machine) -> None:
    """By a manifest that the operator signs, and without any owner."""
    machine.boot(OLD)
    shutil.rmtree(machine.store / FOLDER)
    store = machine.open()
    upload(store, "nobodys", b"again", None)
    store.close()
    clean = copied(machine, "clean")
    (machine.store / FOLDER).mkdir()
    shutil.copy(machine.store / KEY_NAME, machine.store / FOLDER / "key")
    (machine.store / INDEX_NAME).rename(machine.store / FOLDER / "index")
    machine.boot(OLD)
    spare = spare_of(machine, "retire", after=False)
    put_back(machine, clean)
    machine.boot(OLD)
    delete_mine(machine)
    put_back(machine, spare)
    with pytest.raises(UnsealError, match="that store was changed afterwards"):
        machine.open(by=machine.old)
    put_back(machine, spare)
    rename_by_hand(machine)
    with pytest.raises(UnsealError, match="generation 2, and the TEE's counter says 0"):
        machine.open()


def test_a_tpm_that_does_not_remove_the_old_counter_ends_the_start(machine: Machine) -> None:
    def unwilling(command: bytes) -> bytes:
        if command[6:10] == bytes.fromhex("00000122"):  # TPM2_NV_UndefineSpace
            return bytes.fromhex("8001 0000000a 00000101")  # TPM_RC_FAILURE
        return machine.tpm(command)

    with pytest.raises(UnsealError):
        machine.open(by=machine.old, sealer=TpmSealer(machine.store, unwilling))
    machine.open(by=machine.old).close()


def test_a_planted_key_without_an_end_is_refused(machine: Machine) -> None:
    key = machine.store / FOLDER / "key"
    key.write_bytes(key.read_bytes().ljust(8193, b"\0"))
    with pytest.raises(UnsealError, match="more than 8192 bytes"):
        machine.open(by=machine.old)


def test_a_counter_of_the_operators_own_is_no_counter(machine: Machine) -> None:
    """An ordinary index in its place, with the number that the stale hand-over needs."""
    stale = copied(machine, "stale")
    machine.boot(OLD)
    sealer = TpmSealer(machine.store, machine.tpm)
    store = machine.open(sealer=sealer)
    counted = commands.read_counter(machine.tpm, sealer._counter)
    store.delete("mine")
    store.close()
    commands.undefine_counter(machine.tpm, sealer._counter)
    ordinary = commands.u32(sealer._counter) + commands.u16(0x000B) + commands.u32(0x00040004 | 0x00020002)
    public = commands.sized(ordinary + commands.sized(b"") + commands.u16(8))
    owner, password = (commands.RH_OWNER,), commands.password()
    run(machine.tpm, 0x12A, "", handles=owner, authorisation=password, parameters=commands.sized(b"") + public)
    value = commands.sized(counted.to_bytes(8, "big")) + commands.u16(0)
    handles = (commands.RH_OWNER, sealer._counter)
    run(machine.tpm, 0x137, "", handles=handles, authorisation=password, parameters=value)
    put_back(machine, stale)
    machine.boot(NEW)
    with pytest.raises(UnsealError, match="not the one that was made for this store"):
        machine.open(by=machine.old)
