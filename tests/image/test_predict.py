"""What is computed of an image: of which bytes, and that nothing is guessed where a file is another than expected."""

from __future__ import annotations

import hashlib
import struct
import tomllib

import pytest
from locking import ImageError
from predict import VARIABLES, manifest, measure, read_program

from blindai.attestation.manifest import parse_manifest

SECTIONS = {".linux": b"", ".osrel": b"ID=x\n", ".cmdline": b"quiet", ".initrd": b"initrd"}
HEADER, SIGNATURE = 0x40, 0x40 + 24 + 112 + 8 * 4
CHECKSUM = HEADER + 24 + 64


def program(sections: dict[str, bytes], *, signature: bytes = b"", checksum: int = 0) -> bytes:
    """A PE32+ file with these sections, each at its own place, and a signature at its end."""
    optional = struct.pack("<H62xI44x128x", 0x20B, checksum)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", HEADER)
    head += struct.pack("<4sHH12xHH", b"PE\0\0", 0, len(sections), len(optional), 0) + optional
    offset, rows = len(head) + 40 * len(sections), b""
    for name, content in sections.items():
        rows += struct.pack("<8sIIII16x", name.encode(), len(content), 0, len(content), offset)
        offset += len(content)
    whole = bytearray(head + rows + b"".join(sections.values()))
    if signature:
        struct.pack_into("<II", whole, SIGNATURE, len(whole), len(signature))
    return bytes(whole) + signature


def image(**changes: bytes) -> bytes:
    """A unified image, whose sections are called without their dot here."""
    sections = {**SECTIONS, ".linux": program({".text": b"kernel"})}
    return program({**sections, **{f".{name}": content for name, content in changes.items()}})


def extend(*digests: bytes) -> bytes:
    value = bytes(32)
    for digest in digests:
        value = hashlib.sha256(value + digest).digest()
    return value


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_signing_a_program_does_not_change_what_it_is() -> None:
    plain = read_program(program(SECTIONS))
    assert read_program(program(SECTIONS, signature=b"signed by me", checksum=7)) == plain
    assert plain.sections == SECTIONS


def test_any_other_byte_does() -> None:
    whole = program(SECTIONS)
    flipped = {index for index in range(len(whole)) if _authenticode(whole, index) == _authenticode(whole, None)}
    assert flipped == {*range(CHECKSUM, CHECKSUM + 4), *range(SIGNATURE, SIGNATURE + 4)}


def _authenticode(whole: bytes, index: int | None) -> bytes:
    changed = bytearray(whole)
    if index is not None:
        changed[index] ^= 1
    try:
        return read_program(bytes(changed)).authenticode
    except (ImageError, UnicodeDecodeError):
        return b""


@pytest.mark.parametrize("end", [0, 0x3C, HEADER + 8, HEADER + 40, -1])
def test_a_program_that_is_cut_is_refused(end: int) -> None:
    with pytest.raises(ImageError):
        read_program(program(SECTIONS)[:end])


@pytest.mark.parametrize("name", [".linux", ".osrel", ".cmdline", ".initrd"])
def test_what_is_no_unified_image_is_refused(name: str) -> None:
    with pytest.raises(ImageError, match=rf"it has no \{name}"):
        measure(program({key: content for key, content in SECTIONS.items() if key != name}))


def test_pcr_11_is_of_names_and_contents_in_the_stubs_order() -> None:
    kernel = program({".text": b"kernel"})
    parts = (b".linux", kernel), (b".osrel", b"ID=x\n"), (b".cmdline", b"quiet"), (b".initrd", b"initrd")
    expected = extend(*(digest(part) for name, content in parts for part in (name + b"\0", content)))
    assert measure(image()).pcrs[11] == expected


def test_pcr_7_is_of_variables_that_are_not_there() -> None:
    assert [name for _, name in VARIABLES] == ["SecureBoot", "PK", "KEK", "db", "dbx"]
    assert measure(image()).pcrs[7] == measure(image(cmdline=b"other")).pcrs[7]
    # edk2-stable202502 with its variables empty, as a quote had it
    assert measure(image()).pcrs[7].hex() == "b5710bf57d25623e4019027da116821fa99f5c81e9e38b87671cc574f9281439"


def test_linux_is_given_the_initrd_and_an_archive_behind_it() -> None:
    section, given = measure(image()).initrds
    zero, one = b"00000000", b"00000001"
    folder = b"070701" + one + b"0000416d" + zero * 2 + one + zero * 6 + b"00000007" + zero + b".extra\0" + bytes(3)
    file = b"070701" + b"00000002" + b"00008124" + zero * 2 + one + zero + b"00000005" + zero * 4 + b"00000012" + zero
    name, content = b".extra/os-release\0", b"ID=x\n" + bytes(3)
    end = b"070701" + zero * 4 + one + zero * 6 + b"0000000B" + zero + b"TRAILER!!!" + bytes(4)
    archive = folder + file + name + content + end
    assert section == digest(b"initrd")
    assert given == digest(b"initrd\0\0" + archive)


def test_the_manifest_is_one_and_says_all_of_it() -> None:
    reference = measure(image())
    text = manifest(reference, "1.2.0")
    table = tomllib.loads(text)["tee"]["tpm"]
    assert parse_manifest(text.encode(), source="it").release.text == "1.2.0"
    assert table["initrd"] == [one.hex() for one in reference.initrds]
    assert table["pcrs"] == {str(index): [value.hex()] for index, value in reference.pcrs.items()}
