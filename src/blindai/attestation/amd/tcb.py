"""What a TCB version says, and the least that is good today on each CPU model (docs/spec/tee/sev_snp.md §5).

A security patch level (SPL) is a number of one byte per component; higher is newer, and each CPU model counts its own
microcode: 0x1b is current on Siena, where Genoa needs 0x56. A minimum for a whole product would be wrong.
Leaves out: where the numbers stand in a report (amd/report.py) and in a certificate (amd/certificates.py).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from blindai.attestation.amd.report import CpuId, FirmwareVersion, malformed
from blindai.attestation.checks import judge, leave_out
from blindai.attestation.policy_file import Skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section


class Product(enum.Enum):
    """A product line, each with an ARK of its own."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


# AMD document 57230 (VCEK and KDS interface) and the Processor Programming References: family, models, product.
# Bergamo and Siena are 19h/A0h and use Genoa's keys.
_PRODUCTS = (
    (0x19, range(0x10), Product.MILAN),
    (0x19, range(0x10, 0x20), Product.GENOA),
    (0x19, range(0xA0, 0xB0), Product.GENOA),
    (0x1A, range(0x20), Product.TURIN),
)


def product_of(cpuid: CpuId) -> Product | None:
    """The product line of a CPU, or None if this release knows no such one."""
    for family, models, product in _PRODUCTS:
        if cpuid.family == family and cpuid.model in models:
            return product
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """A TCB version: the SPL of each component; `fmc` is 0 on products that have none."""

    fmc: int = 0
    bootloader: int = 0
    tee: int = 0
    snp: int = 0
    microcode: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{name} {getattr(self, name)}" for name in COMPONENTS)

    def is_at_least(self, other: Tcb) -> bool:
        """Whether every component is."""
        return all(getattr(self, name) >= getattr(other, name) for name in COMPONENTS)


COMPONENTS = tuple(component.name for component in fields(Tcb))
# Document 56860 table TCB_VERSION: which byte is which component; the others are reserved.
_MILAN_LAYOUT = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TURIN_LAYOUT = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}


def read_tcb(raw: bytes, product: Product) -> Tcb:
    """The 8 bytes of a TCB version, in the product's layout.

    Raises:
        MalformedEvidenceError: a reserved byte is not zero.
    """
    layout = _TURIN_LAYOUT if product is Product.TURIN else _MILAN_LAYOUT
    if any(byte for place, byte in enumerate(raw) if place not in layout.values()):
        raise malformed(f"TCB version {raw.hex()} with a reserved byte, for {product.value}", code="sev_snp.tcb_format")
    return Tcb(**{name: raw[place] for name, place in layout.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """The least that is accepted of one CPU model: of each component, and of the committed firmware's version."""

    tcb: Tcb
    firmware: FirmwareVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuModel:
    """One CPU model and stepping, with its name in policies."""

    name: str
    cpuid: CpuId
    minimum: Minimum


def _model(name: str, cpuid: tuple[int, int, int], *, snp: int, microcode: int, build: int) -> CpuModel:
    family, model, stepping = cpuid
    return CpuModel(
        name=name,
        cpuid=CpuId(family=family, model=model, stepping=stepping),
        minimum=Minimum(
            tcb=Tcb(snp=snp, microcode=microcode), firmware=FirmwareVersion(major=1, minor=55, build=build)
        ),
    )


# Source: the minima of a client shipped in 2026-03 (github.com/veehaitch/routex-client-lua, commit 6d556047 of
# 2026-03-06, routex-client/attestation/init.lua), read 2026-11-25. Compare with AMD's security bulletins before a
# release: a newer bulletin wins. AMD publishes no minimum for boot loader, TEE and FMC, so theirs is 0.
CPU_MODELS = (
    _model("milan", (0x19, 0x01, 1), snp=0x1B, microcode=0xDE, build=35),
    _model("milan_x", (0x19, 0x01, 2), snp=0x1B, microcode=0x45, build=35),
    _model("genoa", (0x19, 0x11, 1), snp=0x1B, microcode=0x56, build=49),
    _model("genoa_x", (0x19, 0x11, 2), snp=0x1B, microcode=0x51, build=49),
    _model("bergamo_siena", (0x19, 0xA0, 2), snp=0x1B, microcode=0x1B, build=49),
    _model("turin", (0x1A, 0x02, 1), snp=0x04, microcode=0x50, build=65),
    _model("turin_dense", (0x1A, 0x11, 0), snp=0x04, microcode=0x4D, build=65),
)
MINIMA: Mapping[str, Minimum] = {model.name: model.minimum for model in CPU_MODELS}
_NAMES = {model.cpuid: model.name for model in CPU_MODELS}
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\Z")
_HIGHEST_SPL = 255


def read_minimum_tcb(section: Section, key: str) -> Mapping[str, Minimum] | Skip:
    """This release's table, with what the policy changes of it by name of the CPU model, or `{ skip = "reason" }`.

    Raises:
        InvalidPolicyError: an unknown model or component, or a number that no SPL can be.
    """
    table = section.section(key)
    if "skip" in table.members:
        return table.skip()
    for name in table.members:
        if name not in MINIMA:
            raise table.error(f"is no CPU model; known are {', '.join(MINIMA)}", name)
    return {**MINIMA, **{name: _read_minimum(table.section(name), MINIMA[name]) for name in table.members}}


def _read_minimum(section: Section, known: Minimum) -> Minimum:
    levels = {}
    firmware = known.firmware
    for name, value in section.members.items():
        if name == "firmware":
            firmware = _read_firmware(section, value)
        elif name not in COMPONENTS:
            raise section.error(f"is no component; known are {', '.join((*COMPONENTS, 'firmware'))}", name)
        elif type(value) is not int or not 0 <= value <= _HIGHEST_SPL:
            raise section.error(f"must be a whole number from 0 to {_HIGHEST_SPL}", name)
        else:
            levels[name] = value
    return Minimum(tcb=replace(known.tcb, **levels), firmware=firmware)


def _read_firmware(section: Section, value: object) -> FirmwareVersion:
    found = _VERSION.match(value) if isinstance(value, str) else None
    if not found:
        raise section.error('must be a text such as "1.55.35"', "firmware")
    major, minor, build = (int(digits) for digits in found.groups())
    return FirmwareVersion(major=major, minor=minor, build=build)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """What a report says of a CPU's patch levels: now, at the guest's launch, and of the committed firmware.

    Now means REPORTED_TCB: the lowest of the report's three, and the one that AMD's certificate proves.
    """

    cpuid: CpuId | None
    reported: Tcb
    launch: Tcb
    committed: FirmwareVersion


def judge_minimum_tcb(minima: Mapping[str, Minimum] | Skip, levels: Levels) -> Iterator[Finding]:
    """The CPU model is known, and its patch levels and firmware are at least its minimum."""
    name = _NAMES.get(levels.cpuid, "") if levels.cpuid else ""
    found = f"{name or 'unknown'} ({levels.cpuid})" if levels.cpuid else "none: the report is of version 2"
    why = "The least patch level that is good differs from one CPU model to the next."
    if isinstance(minima, Skip):
        found = f"{found}: {levels.reported}; at launch {levels.launch}; firmware {levels.committed}"
        yield leave_out(code="sev_snp.cpu_model", reason=minima.reason, found=found, why=why)
        return
    yield judge(
        holds=name in minima,
        code="sev_snp.cpu_model",
        expected=f"a CPU of a model whose minimum is known: {', '.join(minima)}",
        found=found,
        why=why,
        hint="ask the operator for newer firmware if the report names no CPU; "
        "a CPU that this release does not know needs a newer release",
    )
    if name in minima:
        yield from _judge_minimum(minima[name], name, levels)


def _judge_minimum(minimum: Minimum, name: str, levels: Levels) -> Iterator[Finding]:
    why = "Older firmware and microcode have known holes, through which the host can read the guest or forge reports."
    hint = f"the host runs old firmware: ask its operator for the BIOS and microcode of AMD's bulletins for {name}"
    for component in COMPONENTS:
        least, level = getattr(minimum.tcb, component), getattr(levels.reported, component)
        yield judge(
            holds=level >= least,
            code=f"sev_snp.spl_{component}",
            expected=f"{component} SPL {least} or more on {name}",
            found=str(level),
            why=why,
            hint=hint,
        )
    yield judge(
        holds=levels.committed.order >= minimum.firmware.order,
        code="sev_snp.firmware_version",
        expected=f"committed firmware {minimum.firmware} or newer on {name}",
        found=str(levels.committed),
        why=why,
        hint=hint,
    )
    yield judge(
        holds=levels.launch.is_at_least(minimum.tcb),
        code="sev_snp.launch_tcb",
        expected=f"{minimum.tcb}, or more, at launch on {name}",
        found=str(levels.launch),
        why="A guest that old firmware launched may have been changed before the update.",
        hint="ask the operator to launch the guest again on the newer firmware",
    )
