"""The first process of the verified root: shuts the kernel's doors, then is only the parent of the server.

Serves with the settings of one file, which the operator attaches as a disk with the serial `blindai-config` (TOML,
padded with zero bytes); the server puts their digest into the keyset. Without one it serves with its defaults.
Uploaded models outlive the machine on a disk with the serial `blindai-store`, an ext4 file system: sealed, since the
disk is the host's. Without one they end with the machine.
A disk with the serial `blindai-issuers` holds the CAs above the TPM's EK certificate in PEM, likewise padded: clients
that trust one of them may then challenge the TPM. They judge the chain themselves, so it needs no digest.
When the server ends, the machine is switched off: nothing else is worth running here.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NO_SUID, NO_DEV, NO_EXEC = 2, 4, 8
POWER_OFF = 0x4321FEDC
SERVER = 10001  # user and group
MAX_FILE_BYTES = 1 << 20
FILES = {
    "blindai-config": ("--config", "/run/blindai.toml"),
    "blindai-issuers": ("--tpm-ek-issuers", "/run/issuers.pem"),
}
STORE = "/models"
PCRS = range(24)
MOUNTS = (
    ("proc", "/proc", NO_SUID | NO_DEV | NO_EXEC, "hidepid=2"),
    ("sysfs", "/sys", NO_SUID | NO_DEV | NO_EXEC, ""),
    ("devtmpfs", "/dev", NO_SUID | NO_EXEC, ""),
    ("securityfs", "/sys/kernel/security", NO_SUID | NO_DEV | NO_EXEC, ""),
    ("tmpfs", "/dev/shm", NO_SUID | NO_DEV | NO_EXEC, "mode=1777"),  # noqa: S108  # likewise
    ("tmpfs", "/run", NO_SUID | NO_DEV | NO_EXEC, "mode=755"),
    ("tmpfs", "/tmp", NO_SUID | NO_DEV | NO_EXEC, "mode=1777"),  # noqa: S108  # the guest's own, empty
)
SYSCTLS = {
    "kernel/core_pattern": "|/none",
    "kernel/kexec_load_disabled": "1",
    "kernel/modules_disabled": "1",
    "kernel/kptr_restrict": "2",
    "kernel/dmesg_restrict": "1",
    "kernel/sysrq": "0",
    "fs/suid_dumpable": "0",
}


def main() -> None:
    """Prepare, serve, switch off."""
    for kind, target, flags, data in MOUNTS:
        if not os.path.ismount(target):
            Path(target).mkdir(exist_ok=True)
            _call(LIBC.mount, kind.encode(), target.encode(), kind.encode(), flags, data.encode())
    for name, value in SYSCTLS.items():
        Path("/proc/sys", name).write_text(value)
    _give_tpm()
    _say_pcrs()
    server = os.fork()
    if server == 0:
        _serve()
    while True:
        child, status = os.wait()
        if child == server:
            print(f"start: the server ended with {os.waitstatus_to_exitcode(status)}", flush=True)
            os.sync()
            _call(LIBC.reboot, POWER_OFF)


def _give_tpm() -> None:
    """The server's user talks to the TPM and reads the firmware's log, and owns nothing else."""
    os.chown("/dev/tpmrm0", SERVER, SERVER)
    log = "/sys/kernel/security/tpm0/binary_bios_measurements"
    os.chown(log, 0, SERVER)
    Path(log).chmod(0o440)


def _say_pcrs() -> None:
    """On the console, for who compares: they are no secret, and a client believes only quoted ones."""
    values = [Path(f"/sys/class/tpm/tpm0/pcr-sha256/{pcr}").read_text().strip().lower() for pcr in PCRS]
    print("".join(f"start: pcr {pcr} {value}\n" for pcr, value in zip(PCRS, values, strict=True)), end="", flush=True)


def _serve() -> None:
    os.umask(0o077)
    options = ["--host=0.0.0.0", "--tpm=/dev/tpmrm0"]
    for serial, (option, path) in FILES.items():
        if (file := _disk(serial)) is not None:
            with file.open("rb") as disk:
                Path(path).write_bytes(disk.read(MAX_FILE_BYTES).rstrip(b"\0"))
            Path(path).chmod(0o444)
            options.append(f"{option}={path}")
    if (store := _disk("blindai-store")) is not None:
        _call(LIBC.mount, str(store).encode(), STORE.encode(), b"ext4", NO_SUID | NO_DEV | NO_EXEC, b"")
        os.chown(STORE, SERVER, SERVER)
        options.append(f"--model-store={STORE}")
    os.setgroups([])
    os.setgid(SERVER)
    os.setuid(SERVER)
    os.chdir("/")
    environment = {"HOME": "/tmp", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin"}  # noqa: S108
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.execve(sys.executable, [sys.executable, "-I", "-m", "blindai.cli.main", "serve", *options], environment)  # noqa: S606


def _disk(serial: str) -> Path | None:
    for file in sorted(Path("/sys/block").glob("*/serial")):
        if file.read_text().strip() == serial:
            return Path("/dev", file.parent.name)
    return None


def _call(function: object, *arguments: object) -> None:
    if function(*arguments):  # type: ignore[operator]
        number = ctypes.get_errno()
        raise OSError(number, f"{arguments}: {os.strerror(number)}")


main()
