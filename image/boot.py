"""Boots an image in QEMU's emulator with OVMF and a software TPM of its own, which has a test manufacturer's EK certificate.

Nothing here is trusted by anybody: QEMU reads the guest's memory, and the TPM's manufacturer is made up. What it shows is
that the image boots, and that what a TPM measures is what `predict.py` predicts.
"""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from locking import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from trees import Tools

STORE_BYTES, SECTOR = 256 << 20, 512
OVMF = "/usr/share/OVMF"
_PCR = re.compile(r"^start: pcr (\d+) ([0-9a-f]{64})\r?$", re.MULTILINE)


def manufacture(tools: Tools, state: str) -> Path:
    """Make a machine's TPM, firmware variables and empty store in this folder of the tools', unless it has them."""
    folder = tools.work / state
    if not (folder / "made").exists():
        folder.mkdir(parents=True)
        tools.run("sh", "-ec", _MANUFACTURE.format(state=state, ovmf=OVMF, store_bytes=STORE_BYTES))
        (folder / "made").touch()
    return folder


@contextmanager
def booted(tools: Tools, disk: str, state: str, *, port: int, config: bytes = b"") -> Iterator[Machine]:
    """A manufactured machine that runs `disk` until the end, which is as if its power were cut.

    The disk is only read; the TPM's state and the store's disk stay for a next boot.

    Args:
        tools: in whose folder the disk and the machine's are.
        disk: the image's disk, relative to that folder.
        state: the machine's, likewise.
        port: of the loopback, which leads to the guest's HTTPS.
        config: the settings' file, on a disk of its own.
    """
    folder = tools.work / state
    (folder / "config.img").write_bytes(config.ljust(-(-max(len(config), 1) // SECTOR) * SECTOR, b"\0"))
    serial = folder / "serial.log"
    serial.unlink(missing_ok=True)
    process = subprocess.Popen(
        tools.command("sh", "-ec", _MACHINE.format(disk=disk, state=state, port=port, ovmf=OVMF))
    )
    try:
        yield Machine(process=process, serial=serial)
    finally:
        process.terminate()
        process.wait()


class Machine:
    """A running guest, known by what it writes to its serial port."""

    def __init__(self, process: subprocess.Popen[bytes], serial: Path) -> None:
        self._process = process
        self._serial = serial

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
umask 077; cd /work/{state}; mkdir tpm ca
printf 'statedir = /work/{state}/ca\\nsigningkey = /work/{state}/ca/key.pem\\nissuercert = /work/{state}/ca/ca.pem\\ncertserial = /work/{state}/ca/serial\\n' > ca.conf
printf -- '--platform-manufacturer Test\\n--platform-version 1\\n--platform-model Test\\n--tpm-manufacturer id:00001014\\n--tpm-model Test\\n--tpm-version 1\\n' > ca.options
printf 'create_certs_tool = /usr/bin/swtpm_localca\\ncreate_certs_tool_config = /work/{state}/ca.conf\\ncreate_certs_tool_options = /work/{state}/ca.options\\nactive_pcr_banks = sha256\\n' > setup.conf
cp {ovmf}/OVMF_VARS_4M.fd vars.fd; truncate -s {store_bytes} store.img; mkfs.ext4 -q store.img
swtpm_setup --tpm2 --tpmstate tpm --create-ek-cert --config setup.conf --pcr-banks sha256 --overwrite > setup.log
"""
# exec keeps one process: who ends it ends the machine. swtpm ends with its last client.
_MACHINE = """
cd /work/{state}
swtpm socket --tpm2 --tpmstate dir=/work/{state}/tpm --ctrl type=unixio,path=/tmp/swtpm --terminate --daemon
exec qemu-system-x86_64 -M q35,smm=off -accel tcg,thread=multi,tb-size=512 -cpu max -smp 2 -m 1024 \
 -display none -no-reboot -nodefaults -serial file:serial.log \
 -drive if=pflash,format=raw,unit=0,readonly=on,file={ovmf}/OVMF_CODE_4M.fd \
 -drive if=pflash,format=raw,unit=1,file=vars.fd \
 -drive if=none,id=d0,format=raw,snapshot=on,file=/work/{disk} -device virtio-blk-pci,drive=d0,bootindex=1 \
 -drive if=none,id=d1,format=raw,readonly=on,file=config.img -device virtio-blk-pci,drive=d1,serial=blindai-config \
 -drive if=none,id=d2,format=raw,file=store.img -device virtio-blk-pci,drive=d2,serial=blindai-store \
 -netdev user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:50051 -device virtio-net-pci,netdev=n0,romfile= \
 -device virtio-rng-pci -chardev socket,id=ct,path=/tmp/swtpm -tpmdev emulator,id=t0,chardev=ct -device tpm-crb,tpmdev=t0
"""
