"""Boots an image in QEMU's emulator with OVMF and a software TPM of its own, which has a test manufacturer's EK certificate.

Nothing here is trusted by anybody: QEMU reads the guest's memory, and the TPM's manufacturer is made up. What it shows is
that the image boots, and that what a TPM measures is what `predict.py` predicts.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from locking import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trees import Tools

STORE_BYTES, SECTOR = 256 << 20, 512
OVMF = "/usr/share/OVMF"
ISSUER, ROOT = "ca/ca.pem", "ca/swtpm-localca-rootca-cert.pem"  # in a machine's folder: the CAs of its TPM's maker
_PCR = re.compile(r"^start: pcr (\d+) ([0-9a-f]{64})\r?$", re.MULTILINE)


def manufacture(tools: Tools, state: str) -> Path:
    """Make a machine's TPM, firmware variables and empty store in this folder of the tools', unless it has them."""
    folder = tools.work / state
    if not (folder / "made").exists():
        folder.mkdir(parents=True)
        tools.run("sh", "-ec", _MANUFACTURE.format(state=state, ovmf=OVMF, store_bytes=STORE_BYTES))
        (folder / "made").touch()
    return folder


def enrol(tools: Tools, state: str) -> None:
    """Give a manufactured machine a Secure Boot key of its own, `db.key` and `db.pem` in its folder."""
    tools.run("sh", "-ec", _ENROL.format(state=state, ovmf=OVMF))


def sign(tools: Tools, disk: str, state: str, signed: str) -> None:
    """A copy of a disk, `signed`, whose UKI is signed with that key; disks are relative to the tools' folder."""
    tools.run("sh", "-ec", _SIGN.format(disk=disk, state=state, signed=signed))


@contextmanager
def booted(
    tools: Tools, disk: str, state: str, *, port: int, config: bytes = b"", secure_boot: bool = False
) -> Iterator[Machine]:
    """A manufactured machine that runs `disk` until the end, which is as if its power were cut.

    The disk is only read; the TPM's state and the store's disk stay for a next boot.

    Args:
        tools: in whose folder the disk and the machine's are.
        disk: the image's disk, relative to that folder.
        state: the machine's, likewise.
        port: of the loopback, which leads to the guest's HTTPS.
        config: the settings' file, on a disk of its own.
        secure_boot: with firmware that starts only what its variables' keys have signed (`enrol`).
    """
    folder = tools.work / state
    _write_disk(folder / "config.img", config)
    _write_disk(folder / "issuers.img", b"".join((folder / name).read_bytes() for name in (ISSUER, ROOT)))
    serial = folder / "serial.log"
    serial.unlink(missing_ok=True)
    firmware = _SECURE if secure_boot else _OPEN
    memory = Path(f"/dev/shm/blindai-{secrets.token_hex(8)}")  # noqa: S108  # the tools see the host's /dev
    script = _MACHINE.format(disk=disk, state=state, port=port, ovmf=OVMF, memory=memory, **firmware)
    process = subprocess.Popen(tools.command("sh", "-ec", script))
    try:
        yield Machine(process=process, serial=serial, memory=memory)
    finally:
        process.terminate()
        process.wait()
        memory.unlink(missing_ok=True)


def _write_disk(path: Path, data: bytes) -> None:
    path.write_bytes(data.ljust(-(-max(len(data), 1) // SECTOR) * SECTOR, b"\0"))


class Machine:
    """A running guest, known by what it writes to its serial port."""

    def __init__(self, process: subprocess.Popen[bytes], serial: Path, memory: Path) -> None:
        self._process = process
        self._serial = serial
        self._memory = memory

    def memory(self) -> bytes:
        """All of the guest's memory, in physical order: an emulator hides nothing of it."""
        return self._memory.read_bytes()

    def log(self) -> str:
        """What it has written."""
        return self._serial.read_text("utf-8", "replace") if self._serial.exists() else ""

    def wait(self, done: Callable[[str], bool], timeout_s: float) -> str:
        """Its log once `done` says so of it.

        Raises:
            ImageError: it ends before, or takes longer.
        """
        end = time.monotonic() + timeout_s
        while True:
            is_over = self._process.poll() is not None or time.monotonic() > end  # before its last words are read
            if done(log := self.log()):
                return log
            if is_over:
                raise ImageError(f"the guest did not get there; its last words:\n{log[-2000:]}")
            time.sleep(0.2)

    def pcrs(self) -> dict[int, bytes]:
        """The SHA-256 PCRs that it says it has (nobody vouches for them: a quote is what a client believes)."""
        return {int(pcr): bytes.fromhex(value) for pcr, value in _PCR.findall(self.log())}


_MANUFACTURE = """
umask 077; cd /inside/{state}; mkdir tpm ca
printf 'statedir = /inside/{state}/ca\\nsigningkey = /inside/{state}/ca/key.pem\\nissuercert = /inside/{state}/ca/ca.pem\\ncertserial = /inside/{state}/ca/serial\\n' > ca.conf
printf -- '--platform-manufacturer Test\\n--platform-version 1\\n--platform-model Test\\n--tpm-manufacturer id:00001014\\n--tpm-model Test\\n--tpm-version 1\\n' > ca.options
printf 'create_certs_tool = /usr/bin/swtpm_localca\\ncreate_certs_tool_config = /inside/{state}/ca.conf\\ncreate_certs_tool_options = /inside/{state}/ca.options\\nactive_pcr_banks = sha256\\n' > setup.conf
cp {ovmf}/OVMF_VARS_4M.fd vars.fd; truncate -s {store_bytes} store.img; mkfs.ext4 -q store.img
swtpm_setup --tpm2 --tpmstate tpm --create-ek-cert --config setup.conf --pcr-banks sha256 --overwrite > setup.log
"""
_ENROL = """
cd /inside/{state}
openssl req -quiet -x509 -newkey rsa:2048 -nodes -subj /CN=test -days 30 -keyout db.key -out db.pem
owner=77fa9abd-0359-4d32-bd60-28f4e78f784b
virt-fw-vars -i {ovmf}/OVMF_VARS_4M.fd -o vars.fd --set-pk $owner db.pem --add-kek $owner db.pem --add-db $owner db.pem --sb
"""
_SIGN = """
cd /inside
sbsign --key {state}/db.key --cert {state}/db.pem --output {state}/signed.efi uki.efi
cp {disk} {signed}
mcopy -o -i {signed}@@1M {state}/signed.efi ::/EFI/BOOT/BOOTX64.EFI
"""
_OPEN = {"code": "OVMF_CODE_4M.fd", "machine": "q35,smm=off,memory-backend=ram"}
# Its variables can be written only in system management mode, which a guest's system cannot enter.
_SECURE = {
    "code": "OVMF_CODE_4M.secboot.fd",
    "machine": "q35,smm=on,memory-backend=ram -global driver=cfi.pflash01,property=secure,value=on",
}
# exec keeps one process: who ends it ends the machine. swtpm ends with its last client.
_MACHINE = """
cd /inside/{state}
swtpm socket --tpm2 --tpmstate dir=/inside/{state}/tpm --ctrl type=unixio,path=/tmp/swtpm --terminate --daemon
exec qemu-system-x86_64 -M {machine} -object memory-backend-file,id=ram,size=1G,share=on,mem-path={memory} -accel tcg,thread=multi,tb-size=512 -cpu max -smp 2 -m 1024 \
 -display none -no-reboot -nodefaults -serial file:serial.log \
 -drive if=pflash,format=raw,unit=0,readonly=on,file={ovmf}/{code} \
 -drive if=pflash,format=raw,unit=1,file=vars.fd \
 -drive if=none,id=d0,format=raw,snapshot=on,file=/inside/{disk} -device virtio-blk-pci,drive=d0,bootindex=1 \
 -drive if=none,id=d1,format=raw,readonly=on,file=config.img -device virtio-blk-pci,drive=d1,serial=blindai-config \
 -drive if=none,id=d3,format=raw,readonly=on,file=issuers.img -device virtio-blk-pci,drive=d3,serial=blindai-issuers \
 -drive if=none,id=d2,format=raw,file=store.img -device virtio-blk-pci,drive=d2,serial=blindai-store \
 -netdev user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:50051 -device virtio-net-pci,netdev=n0,romfile= \
 -device virtio-rng-pci -chardev socket,id=ct,path=/tmp/swtpm -tpmdev emulator,id=t0,chardev=ct -device tpm-crb,tpmdev=t0
"""
