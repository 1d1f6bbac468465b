"""NVIDIA's attestation report: an SPDM 1.1 GET_MEASUREMENTS request and its response, read exactly.

Request and response are DMTF DSP0274 1.1.0 §10.11; the fields of the opaque data are listed in NVIDIA's attestation-sdk
(gpu_opaque_data_parser.hpp and switch_opaque_data_parser.hpp, commit 73c032eb of 2026-06-25), which is where NVIDIA
documents them.
Leaves out: who signed it (tee/nvidia_gpu.py), and which measurements are good (nvidia/rim.py).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TEE = "nvidia_gpu"
FORMAT = f"{TEE}.format"

# u8 version ‖ u8 code ‖ u8 "signed, please" ‖ u8 "all blocks" ‖ nonce[32] ‖ u8 certificate slot
_REQUEST_HEADER = bytes.fromhex("11e001ff")
REQUEST_BYTES = 37
# u8 version ‖ u8 code ‖ u8 0 ‖ u8 certificate slot ‖ u8 blocks ‖ u24 record size ‖ record ‖ nonce[32] ‖ u16 opaque size
# ‖ opaque ‖ signature[96]; every number little-endian
_RESPONSE_HEADER = bytes.fromhex("116000")
NONCE_BYTES = 32
SIGNATURE_BYTES = 96
MAX_REPORT_BYTES = 0x2000  # nvml.h, NVML_CC_GPU_ATTESTATION_REPORT_SIZE
_DMTF_BLOCK = 1
_MAX_VALUE_TYPE = 4
_MAX_SLOT = 7
_MAX_OPAQUE_VERSION = 1
PDI_BYTES = 8
_SWITCH_GPUS = 8  # of SWITCH_GPU_PDIS; a map of ports follows
_NO_DEVICE = (bytes(PDI_BYTES), b"\xff" * PDI_BYTES)

_DRIVER = re.compile(rb"[0-9]{1,5}(?:\.[0-9]{1,5}){1,3}\Z")
_VBIOS = re.compile(rb"[0-9A-F]{2}(?:\.[0-9A-F]{2}){4}\Z")
_WORD = re.compile(rb"[0-9A-Za-z]{0,16}\Z")


class Opaque(enum.IntEnum):
    """The fields of the opaque data that are looked at; others are signed, and say nothing that is judged."""

    DRIVER_VERSION = 3
    VBIOS_VERSION = 6
    NVDEC0_STATUS = 11
    CHIP_SKU = 15
    PROJECT = 17
    PROJECT_SKU = 18
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    SWITCH_GPU_PDIS = 26
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36


_ON, _OFF = b"\xaa", b"\x55"
_FEATURES = {0: "spt", 1: "mpt", 2: "ppcie"}
# Single GPU, several GPUs with encrypted NVLink, several with protected PCIe and NVLink in the clear; "unstated" by old
# drivers, "contradictory" where flag and status disagree, which no policy can accept.
MODES = ("spt", "mpt", "ppcie", "unstated")
_CONTRADICTORY = "contradictory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a report says of the device.

    Attributes:
        driver_version: of a GPU; an NVSwitch has none.
        vbios_version: for example `96.00.9F.00.01`.
        mode: one of `MODES`, or "contradictory".
        skips_nvdec: the video decoder is off, so that its measurement (RIM index 35) means nothing.
        fwid: SHA-384 of the first mutable firmware; old firmware does not say it.
        neighbours: PDIs of the switches of a GPU, or of the GPUs of a switch.
        driver_rim: the name under which NVIDIA publishes the driver's RIM; an NVSwitch has none.
        vbios_rim: likewise, the VBIOS's.
    """

    driver_version: str | None
    vbios_version: str
    mode: str = "unstated"
    skips_nvdec: bool = False
    fwid: bytes | None
    neighbours: frozenset[bytes]
    driver_rim: str = ""
    vbios_rim: str

    @property
    def is_switch(self) -> bool:
        """Whether it is an NVSwitch; only a GPU has a driver."""
        return self.driver_version is None


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaReport:
    """What a GPU or an NVSwitch signed.

    Attributes:
        nonce: of the request; the device signs the request too.
        measurements: block 1 first.
        signed: all bytes that the signature is over.
        signature: r ‖ s, 48 bytes each.
    """

    nonce: bytes
    measurements: tuple[bytes, ...] = field(repr=False)
    device: Device
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


class _Reader:
    """Takes bytes from the front; what is not there is malformed."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._at = data, 0
        self._what = what

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        begin, end = self._at, self._at + size
        if end > len(self._data):
            raise _malformed(f"{size} more bytes of {self._what}", f"{self.left}")
        self._at = end
        return self._data[begin:end]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def expect(self, constant: bytes) -> None:
        found = self.take(len(constant))
        if found != constant:
            raise _malformed(f"{constant.hex()} in {self._what}", found.hex())

    def end(self) -> None:
        if self.left:
            raise _malformed(f"the end of {self._what}", f"{self.left} more bytes")


def _malformed(expected: str, found: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(f"expected {expected}, found {found}", finding_code=FORMAT, tee=TEE)


def parse(raw: bytes) -> NvidiaReport:
    """Read request ‖ response, as NVML and NSCQ give them.

    Raises:
        MalformedEvidenceError: anything but exactly that.
    """
    if len(raw) > MAX_REPORT_BYTES:
        raise _malformed(f"a report of at most {MAX_REPORT_BYTES} bytes", f"{len(raw)}")
    reader = _Reader(raw, "the report")
    reader.expect(_REQUEST_HEADER)
    nonce = reader.take(NONCE_BYTES)
    slot = reader.number(1)
    if slot > _MAX_SLOT:
        raise _malformed(f"a certificate slot up to {_MAX_SLOT}", str(slot))
    reader.expect(_RESPONSE_HEADER + bytes([slot]))
    count = reader.number(1)
    measurements = _measurements(reader.take(reader.number(3)), count)
    reader.take(NONCE_BYTES)  # the device's own
    opaque = _opaque_fields(reader.take(reader.number(2)))
    signature = reader.take(SIGNATURE_BYTES)
    reader.end()
    return NvidiaReport(
        nonce=nonce,
        measurements=measurements,
        device=_gpu(opaque) if Opaque.DRIVER_VERSION in opaque else _switch(opaque),
        signed=raw[:-SIGNATURE_BYTES],
        signature=signature,
    )


def _measurements(record: bytes, count: int) -> tuple[bytes, ...]:
    """Blocks of u8 index ‖ u8 1 ‖ u16 size ‖ u8 value type ‖ u16 value size ‖ value, numbered from 1."""
    reader = _Reader(record, "the measurement record")
    values = []
    for index in range(1, count + 1):
        reader.expect(bytes([index, _DMTF_BLOCK]))
        block = _Reader(reader.take(reader.number(2)), f"measurement block {index}")
        value_type = block.number(1) & 0x7F  # the highest bit tells a raw value from a digest
        if value_type > _MAX_VALUE_TYPE:
            raise _malformed(f"a value type up to {_MAX_VALUE_TYPE}", str(value_type))
        values.append(block.take(block.number(2)))
        block.end()
    reader.end()
    return tuple(values)


def _opaque_fields(data: bytes) -> dict[int, bytes]:
    """Fields of u16 type ‖ u16 size ‖ value, each type once."""
    reader = _Reader(data, "the opaque data")
    fields: dict[int, bytes] = {}
    while reader.left:
        kind = reader.number(2)
        if kind in fields:
            raise _malformed("each opaque field once", f"{kind} twice")
        fields[kind] = reader.take(reader.number(2))
    version = int.from_bytes(fields.get(Opaque.OPAQUE_DATA_VERSION, b""), "little")
    if version > _MAX_OPAQUE_VERSION:
        raise _malformed(f"opaque data up to version {_MAX_OPAQUE_VERSION}", f"version {version}")
    return fields


def _gpu(opaque: Mapping[int, bytes]) -> Device:
    driver = _version(opaque[Opaque.DRIVER_VERSION].removesuffix(b"\0"), _DRIVER)
    vbios = _gpu_vbios(_required(opaque, Opaque.VBIOS_VERSION))
    board = [_word(_required(opaque, kind)) for kind in (Opaque.PROJECT, Opaque.PROJECT_SKU, Opaque.CHIP_SKU)]
    chip = _word(opaque.get(Opaque.CHIP_INFO, b""))
    return Device(
        driver_version=driver,
        vbios_version=vbios,
        mode=_mode(opaque),
        skips_nvdec=not _is_on(_required(opaque, Opaque.NVDEC0_STATUS)),
        fwid=opaque.get(Opaque.FWID),
        # A GPU writes the PDIs of its switches backwards.
        neighbours=_devices(bytes(reversed(pdi)) for pdi in _pdis(opaque.get(Opaque.SWITCH_PDI, b""))),
        # Only Blackwell says its chip; Hopper has one.
        driver_rim=f"NV_GPU_CC_DRIVER_{chip}_{driver}" if chip else f"NV_GPU_DRIVER_GH100_{driver}",
        vbios_rim="_".join(["NV_GPU_VBIOS", *board, vbios.replace(".", "")]),
    )


def _switch(opaque: Mapping[int, bytes]) -> Device:
    vbios = _version(_required(opaque, Opaque.VBIOS_VERSION), _VBIOS)
    gpus = _pdis(_required(opaque, Opaque.SWITCH_GPU_PDIS)[: _SWITCH_GPUS * PDI_BYTES])
    return Device(
        driver_version=None,
        vbios_version=vbios,
        fwid=opaque.get(Opaque.FWID),
        neighbours=_devices(gpus),
        vbios_rim=f"NV_SWITCH_BIOS_5612_0002_890_{vbios.replace('.', '')}",  # the one board that NVIDIA names
    )


def _required(opaque: Mapping[int, bytes], kind: Opaque) -> bytes:
    if kind not in opaque:
        raise _malformed(f"the opaque field {kind.name}", "none")
    return opaque[kind]


def _version(text: bytes, form: re.Pattern[bytes]) -> str:
    if not form.match(text):
        raise _malformed("a version such as 550.90.07 or 96.00.9F.00.01", text.hex())
    return text.decode("ascii")


def _word(text: bytes) -> str:
    word = text.rstrip(b"\0")
    if not _WORD.match(word):
        raise _malformed("letters and digits, then zeros", text.hex())
    return word.decode("ascii")


def _gpu_vbios(value: bytes) -> str:
    """Bytes 3, 2, 1, 0 and 4 make the version; the other three are zero."""
    if len(value) != 8 or any(value[5:]):  # noqa: PLR2004  # the field's size
        raise _malformed("a VBIOS version of 5 bytes and 3 zeros", value.hex())
    return ".".join(f"{value[index]:02X}" for index in (3, 2, 1, 0, 4))


def _is_on(status: bytes) -> bool:
    if status not in {_ON, _OFF}:
        raise _malformed("a status of aa (on) or 55 (off)", status.hex())
    return status == _ON


def _mode(opaque: Mapping[int, bytes]) -> str:
    """By the feature flag of newer drivers; older ones say only whether PCIe is protected."""
    protected = Opaque.PROTECTED_PCIE_STATUS in opaque and _is_on(opaque[Opaque.PROTECTED_PCIE_STATUS])
    if Opaque.FEATURE_FLAG not in opaque:
        return "ppcie" if protected else "unstated"
    flag = int.from_bytes(opaque[Opaque.FEATURE_FLAG], "little")
    if flag not in _FEATURES:
        raise _malformed(f"a feature flag of {', '.join(map(str, _FEATURES))}", str(flag))
    states_otherwise = Opaque.PROTECTED_PCIE_STATUS in opaque and protected != (_FEATURES[flag] == "ppcie")
    return _CONTRADICTORY if states_otherwise else _FEATURES[flag]


def _pdis(data: bytes) -> Iterator[bytes]:
    if len(data) % PDI_BYTES:
        raise _malformed(f"device identifiers of {PDI_BYTES} bytes", f"{len(data)} bytes")
    return (data[start : start + PDI_BYTES] for start in range(0, len(data), PDI_BYTES))


def _devices(pdis: Iterable[bytes]) -> frozenset[bytes]:
    """Those that are connected; an idle link is all zeros or all ones."""
    return frozenset(pdi for pdi in pdis if pdi not in _NO_DEVICE)
