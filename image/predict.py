"""What a TPM measures when it boots an image, computed from the image alone: the reference values of a release.

Rules: Firmware Profile 1.06, "PCR Usage" (PCRs 4 and 7); UAPI.5 and systemd-stub's page (PCRs 11 and 12); Microsoft,
"Windows Authenticode Portable Executable Signature Format" (what firmware hashes of a program).
Firmware is OVMF, with Secure Boot off. PCR 0 is the firmware's own, 1, 5 and 9 say nothing that 4 and 11 do not; what
Linux itself measures into PCR 9, the initrd as it got it, is among the manifest's `initrd`.
Leaves out: Secure Boot's variables, SEV-SNP's launch digests, Nitro's PCRs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from locking import ImageError

BOOT_OPTION = b"Calling EFI Application from Boot Option"
SEPARATOR = bytes(4)
# systemd-stub 257, in its order; `.pcrsig` is never measured. A section that is not there is passed over.
SECTIONS = (
    ".linux",
    ".osrel",
    ".cmdline",
    ".initrd",
    ".ucode",
    ".splash",
    ".dtb",
    ".uname",
    ".sbat",
    ".pcrpkey",
    ".profile",
)
_GLOBAL = uuid.UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_SECURITY = uuid.UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
VARIABLES = ((_GLOBAL, "SecureBoot"), (_GLOBAL, "PK"), (_GLOBAL, "KEK"), (_SECURITY, "db"), (_SECURITY, "dbx"))

_FILE, _FOLDER = 0o100444, 0o40555
_TRAILER = b"070701" + b"0" * 32 + b"00000001" + b"0" * 48 + b"0000000B" + b"0" * 8 + b"TRAILER!!!" + bytes(4)

_PE64, _PE64_DIRECTORIES, _CHECKSUM, _CERTIFICATES = 0x20B, 112, 64, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A PE32+ file, as firmware and systemd-stub read it.

    Attributes:
        authenticode: SHA-256 of all but its checksum and its signatures.
        sections: each one's bytes, as they lie in memory.
    """

    authenticode: bytes
    sections: dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What an image measures to, in SHA-256.

    Attributes:
        pcrs: values by index.
        boot_applications: what firmware and stub start, in this order.
        kernel: of the kernel's file.
        initrds: of the initrd's section, and of what Linux is given, in this order.
    """

    pcrs: dict[int, bytes]
    boot_applications: tuple[bytes, ...]
    kernel: bytes
    initrds: tuple[bytes, bytes]


def read_program(data: bytes) -> Program:
    """Read a PE32+ file.

    Raises:
        ImageError: it is none, or says that something lies outside of it.
    """
    try:
        return _read_program(data)
    except struct.error:
        raise ImageError("a PE file that ends too early") from None


def _read_program(data: bytes) -> Program:
    (header,) = struct.unpack_from("<I", data, 0x3C)
    magic, _, count, optional_bytes, _ = struct.unpack_from("<4sHH12xHH", data, header)
    optional = header + 24
    (kind,) = struct.unpack_from("<H", data, optional)
    if (magic, kind) != (b"PE\0\0", _PE64):
        raise ImageError("not a PE32+ file")
    checksum, entry = optional + _CHECKSUM, optional + _PE64_DIRECTORIES + 8 * _CERTIFICATES
    start, size = struct.unpack_from("<II", data, entry)
    if size and start + size != len(data):
        raise ImageError("signatures that are not the end of the PE file")
    parts = data[:checksum], data[checksum + 4 : entry], data[entry + 8 : start if size else len(data)]
    sections = {}
    for index in range(count):
        row = optional + optional_bytes + 40 * index
        name, memory_bytes, _, file_bytes, offset = struct.unpack_from("<8sIIII", data, row)
        content = data[offset : offset + min(memory_bytes, file_bytes)]
        if len(content) != min(memory_bytes, file_bytes):
            raise ImageError("a section that ends behind the PE file")
        sections[name.rstrip(b"\0").decode("ascii")] = content.ljust(memory_bytes, b"\0")
    return Program(authenticode=hashlib.sha256(b"".join(parts)).digest(), sections=sections)


def measure(uki: bytes) -> Reference:
    """The reference values of a unified kernel image.

    Raises:
        ImageError: it is none.
    """
    image = read_program(uki)
    missing = {".linux", ".osrel", ".cmdline", ".initrd"} - set(image.sections)
    if missing:
        raise ImageError(f"no unified kernel image: it has no {', '.join(sorted(missing))}")
    applications = (image.authenticode, read_program(image.sections[".linux"]).authenticode)
    return Reference(
        pcrs={
            4: _extend(_digest(BOOT_OPTION), _digest(SEPARATOR), *applications),
            7: _extend(*(_digest(_empty_variable(*variable)) for variable in VARIABLES), _digest(SEPARATOR)),
            11: _sections(image.sections),
            12: bytes(32),  # nothing but the image says with which command line it starts
        },
        boot_applications=applications,
        kernel=_digest(image.sections[".linux"]),
        initrds=(_digest(image.sections[".initrd"]), _digest(_given_initrd(image.sections))),
    )


def _sections(sections: dict[str, bytes]) -> bytes:
    present = [name for name in SECTIONS if name in sections]
    return _extend(*(_digest(part) for name in present for part in (name.encode() + b"\0", sections[name])))


def _given_initrd(sections: dict[str, bytes]) -> bytes:
    """The section, and the archive that systemd-stub 257 makes behind it (src/boot/cpio.c, `pack_cpio_literal`).

    An image with `.ucode`, `.pcrsig`, `.pcrpkey` or `.profile` has more there: ours has none.
    """
    return b"".join((
        _aligned(sections[".initrd"]),
        _cpio_entry(".extra", inode=1, mode=_FOLDER),
        _cpio_entry(".extra/os-release", inode=2, mode=_FILE, content=sections[".osrel"]),
        _TRAILER,
    ))  # fmt: skip


def _cpio_entry(name: str, *, inode: int, mode: int, content: bytes = b"") -> bytes:
    """One entry in the form `newc`, with one link and no owner, time or device."""
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers)
    return _aligned(_aligned(head + name.encode() + b"\0") + content)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _empty_variable(vendor: uuid.UUID, name: str) -> bytes:
    """UEFI_VARIABLE_DATA of a variable that is not there."""
    return vendor.bytes_le + struct.pack("<QQ", len(name), 0) + name.encode("utf-16-le")


def _extend(*digests: bytes) -> bytes:
    value = bytes(32)
    for one in digests:
        value = _digest(value + one)
    return value


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def manifest(reference: Reference, release: str) -> str:
    """A manifest (docs/spec/manifest.md), not yet signed: `blindai manifest sign` does."""
    pcrs = "".join(f'{index} = ["{value.hex()}"]\n' for index, value in reference.pcrs.items())
    lists = {
        "boot_applications": reference.boot_applications,
        "kernel": (reference.kernel,),
        "initrd": reference.initrds,
    }
    fields = "".join(f"{name} = {json.dumps([one.hex() for one in digests])}\n" for name, digests in lists.items())
    return f'version = 1\nname = "blindai"\nrelease = "{release}"\n\n[tee.tpm]\n{fields}\n[tee.tpm.pcrs]\n{pcrs}'


def main() -> int:
    """Print the manifest of an image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("uki", type=Path)
    parser.add_argument("--release", required=True, help="the version that the manifest names")
    arguments = parser.parse_args()
    try:
        print(manifest(measure(arguments.uki.read_bytes()), arguments.release), end="")
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
