"""A firmware, and loaders after it, that measure anything: event logs with the PCR values that they lead to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

ALGORITHMS = {"sha1": (0x0004, 20), "sha256": (0x000B, 32), "sha384": (0x000C, 48), "sha512": (0x000D, 64)}
NO_ACTION, SEPARATOR, TAG, VERSION, IPL, HOST = 0x3, 0x4, 0x6, 0x8, 0xD, 0x11
VARIABLE, APPLICATION, ACTION = 0x80000001, 0x80000003, 0x80000007

GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
DATABASE = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
CALLING = b"Calling EFI Application from Boot Option"
COMMAND_LINE = "/vmlinuz root=/dev/dm-0 ro quiet"
KERNEL, INITRD, LOADER, CONFIGURATION = b"a kernel", b"an initrd", b"a loader", b"set default=0\n"


def digest(data: bytes, bank: str = "sha256") -> bytes:
    return hashlib.new(bank, data).digest()


def wide(text: str) -> bytes:
    return text.encode("utf-16-le")


def variable(name: str, value: bytes, namespace: bytes = GLOBAL) -> bytes:
    lengths = len(name).to_bytes(8, "little") + len(value).to_bytes(8, "little")
    return namespace + lengths + wide(name) + value


@dataclass(kw_only=True)
class FakeBoot:
    """A log being written; `measured` is what is extended where the log's data is only about it."""

    banks: tuple[str, ...] = ("sha1", "sha256", "sha384")
    locality: int = 0
    header: bytes | None = None
    events: list[bytes] = field(default_factory=list)
    values: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def extend(self, pcr: int, kind: int, data: bytes, *, measured: bytes | None = None) -> FakeBoot:
        digests = {bank: digest(data if measured is None else measured, bank) for bank in self.banks}
        for bank, value in digests.items():
            self.values[bank, pcr] = digest(self.value(bank, pcr) + value, bank)
        self.events.append(self.event(pcr, kind, digests, data))
        return self

    def record(self, pcr: int, data: bytes) -> FakeBoot:
        """An event that is logged and not extended."""
        zeros = {bank: bytes(ALGORITHMS[bank][1]) for bank in self.banks}
        self.events.append(self.event(pcr, NO_ACTION, zeros, data))
        return self

    @staticmethod
    def event(pcr: int, kind: int, digests: dict[str, bytes], data: bytes) -> bytes:
        listed = b"".join(ALGORITHMS[bank][0].to_bytes(2, "little") + value for bank, value in digests.items())
        numbers = [pcr, kind, len(digests)]
        return b"".join(number.to_bytes(4, "little") for number in numbers) + listed + sized(data)

    def value(self, bank: str, pcr: int) -> bytes:
        start = bytes([self.locality]) if pcr == 0 else b"\0"
        if pcr in range(17, 23):
            start = b"\xff" * ALGORITHMS[bank][1]
        return self.values.get((bank, pcr), start.rjust(ALGORITHMS[bank][1], b"\0"))

    def log(self) -> bytes:
        header = self.header if self.header is not None else spec_id(self.banks)
        first = bytes(4) + NO_ACTION.to_bytes(4, "little") + bytes(20) + sized(header)
        return first + b"".join(self.events)


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def spec_id(
    banks: tuple[str, ...], *, version: bytes = b"\x00\x02", vendor: bytes = b"", sizes: dict[str, int] | None = None
) -> bytes:
    """TCG_EfiSpecIDEvent."""
    listed = b"".join(
        ALGORITHMS[bank][0].to_bytes(2, "little") + (sizes or {}).get(bank, ALGORITHMS[bank][1]).to_bytes(2, "little")
        for bank in banks
    )
    numbers = bytes(4) + version + b"\x00\x02" + len(banks).to_bytes(4, "little")
    return b"Spec ID Event03\0" + numbers + listed + bytes([len(vendor)]) + vendor


def firmware(boot: FakeBoot | None = None, *, secure: int = 1, flags: tuple[str, ...] = ()) -> FakeBoot:
    """What Google's firmware measures until it starts an application."""
    boot = boot or FakeBoot()
    boot.record(0, b"SP800-155 Event3" + bytes(16))
    boot.extend(0, VERSION, wide("GCE Virtual Firmware v2\0"))
    boot.extend(0, HOST, b"GCE NonHostInfo\0" + bytes([4]).ljust(16, b"\0"))
    for flag in flags:
        boot.extend(7, ACTION, flag.encode())
    boot.extend(7, VARIABLE, variable("SecureBoot", bytes([secure])))
    for name, namespace in (("PK", GLOBAL), ("KEK", GLOBAL), ("db", DATABASE), ("dbx", DATABASE)):
        boot.extend(7, VARIABLE, variable(name, f"signatures of {name}".encode(), namespace))
    boot.extend(4, ACTION, CALLING)
    for pcr in range(8):
        boot.extend(pcr, SEPARATOR, bytes(4))
    return boot


def grub_command(boot: FakeBoot, text: str, label: str = "grub_cmd: ") -> None:
    boot.extend(8, IPL, f"{label}{text}\0".encode(), measured=text.encode())


def grub(boot: FakeBoot, *, command_line: str = COMMAND_LINE, with_initrd: bool = True) -> FakeBoot:
    """What GRUB measures when it starts Linux, and Linux's stub after it."""
    boot.extend(4, APPLICATION, b"device path", measured=LOADER)
    boot.extend(9, IPL, b"/grub.cfg\0", measured=CONFIGURATION)
    grub_command(boot, "set default=0")
    grub_command(boot, f"linux {command_line}")
    boot.extend(9, IPL, b"/vmlinuz\0", measured=KERNEL)
    grub_command(boot, command_line, "kernel_cmdline: ")
    if with_initrd:
        grub_command(boot, "initrd /initrd.img")
        boot.extend(9, IPL, b"/initrd.img\0", measured=INITRD)
        boot.extend(9, TAG, 0x8F3B22EC.to_bytes(4, "little") + sized(b"Linux initrd\0"), measured=INITRD)
    options = sized(b"LOADED_IMAGE::LoadOptions\0")
    boot.extend(9, TAG, b"\xed\x22\x3b\x8f" + options, measured=wide(f"BOOT_IMAGE={command_line}"))
    boot.extend(5, ACTION, b"Exit Boot Services Invocation")
    return boot


def stub(boot: FakeBoot, *, command_line: str = COMMAND_LINE) -> FakeBoot:
    """What systemd-stub measures of a unified image, and Linux's own stub after it."""
    boot.extend(4, APPLICATION, b"device path", measured=LOADER)
    sections = {".linux": KERNEL, ".osrel": b"ID=test", ".cmdline": command_line.encode(), ".initrd": INITRD}
    for name, content in sections.items():
        boot.extend(11, IPL, wide(f"{name}\0"), measured=name.encode() + b"\0")
        boot.extend(11, IPL, wide(f"{name}\0"), measured=content)
    boot.extend(9, TAG, 0x8F3B22EC.to_bytes(4, "little") + sized(b"Linux initrd\0"), measured=INITRD)
    return boot
