"""What a replayed event log says about a boot: Secure Boot, and what was loaded and with which command line.

Only PCRs that were quoted are read, and of their events only the extended digests are proven: a text counts where its
digest was extended, a type or a file's name nowhere. So each answer is complete for its PCR, whatever the log calls it.
The PCRs' uses: TCG PC Client Platform Firmware Profile 1.06, "PCR Usage"; UAPI.7 Linux TPM PCR Registry.
Leaves out: whether the log replays (tpm2/event_log.py), which answers are accepted (tpm2/boot_policy.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.tpm2.event_log import EV_EVENT_TAG, EV_SEPARATOR
from blindai.attestation.tpm2.secure_boot import VARIABLES, read_variable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from blindai.attestation.tpm2.event_log import Event, EventLog

FIRMWARE_PCRS = range(8)
_APPLICATIONS, _SECURE_BOOT, _TEXTS, _FILES, _SECTIONS, _CONFIGURATION = 4, 7, 8, 9, 11, 12

# Firmware Profile, EV_EFI_ACTION: texts that firmware measures; those of PCR 7 confess a weakness.
FIRMWARE_FLAGS = ("UEFI Debug Mode", "DMA Protection Disabled")
_ACTIONS = tuple(
    text.encode()
    for text in (
        "Calling EFI Application from Boot Option",
        "Returning from EFI Application from Boot Option",
        "Exit Boot Services Invocation",
        "Exit Boot Services Returned with Failure",
        "Exit Boot Services Returned with Success",
    )
)
_SEPARATORS = (b"\0\0\0\0", b"\xff\xff\xff\xff")  # any other says that measuring failed

# GRUB, grub-core/lib/tpm: the digest is over the text alone, the log has these words before it and a NUL after it.
_COMMAND, _COMMAND_LINE = b"grub_cmd: ", b"kernel_cmdline: "
# A command is a word; a kernel's command line begins with the kernel's file, named absolutely or by blocks, or quoted,
# or on the network in any way, but as in the measured command that loaded it.
_NAMES_A_FILE = re.compile(rb"[/(+,0-9\"'\\]")
_LOADS_KERNEL = re.compile(rb"linux(?:efi|16)?\s+(\S+)")
_LOADS_INITRD = re.compile(rb"initrd(?:efi|16)?\s+(.+)", re.DOTALL)
# Linux, drivers/firmware/efi/libstub: the initrd that the kernel itself measures into PCR 9.
_LINUX_INITRD = 0x8F3B22EC.to_bytes(4, "little")

# systemd-stub measures name ‖ NUL, then the section's bytes (UAPI.5, TPM2_PCR_MEASUREMENTS.md); so names are proven.
_SECTIONS_OF_IMAGES = (
    *(b".linux", b".osrel", b".cmdline", b".initrd", b".ucode", b".splash", b".dtb", b".dtbauto", b".hwids"),
    *(b".uname", b".sbat", b".pcrsig", b".pcrpkey", b".profile", b".efifw"),
)

# Google's firmware: EV_S_CRTM_VERSION and EV_NONHOST_INFO of PCR 0.
_GCE_FIRMWARE = "GCE Virtual Firmware v".encode("utf-16-le")
_GCE_HOST = b"GCE NonHostInfo\0"
_GCE_TECHNOLOGIES = ("none", "AMD SEV", "AMD SEV-ES", "Intel TDX", "AMD SEV-SNP")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """A kernel's command line, as it was measured.

    Attributes:
        digest: what was extended.
        text: the text of that digest, or empty if the log does not have it.
    """

    digest: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BootClaims:
    """What was measured while booting; digests are of the quoted bank.

    Attributes:
        quoted: the quoted PCRs of which the log tells everything; nothing is known of the others, so an empty answer
            may mean that.
        secure_boot: None if PCR 7 does not say it exactly once, before it was closed.
        variables: PK, KEK, db and dbx, with the digests measured.
        unclosed: the quoted firmware PCRs that have not exactly one separator, or one that says an error.
        firmware_flags: those of `FIRMWARE_FLAGS` that PCR 7 has.
        firmware: the firmware's own name for itself, if it is Google's.
        memory_encryption: what Google's firmware was told by its host, or empty.
        applications: everything that PCR 4 measured and is no announcement: loaders, unified images, kernels.
        kernels: sections `.linux` of unified images, and the files that GRUB's command `linux` named.
        initrds: sections `.initrd`, files that GRUB's command `initrd` named, and what the kernel measured.
        command_lines: sections `.cmdline`, GRUB's texts, and whatever PCR 12 has.
        files: everything that PCR 9 measured: the loader's files, and what the kernel's stub got.
        by_name: whether PCR 8 has a loader's commands, so that kernels and initrds may be known by names that nothing
            proves, but that every other file is known.
    """

    quoted: frozenset[int]
    secure_boot: bool | None
    variables: tuple[tuple[str, bytes], ...]
    unclosed: tuple[int, ...]
    firmware_flags: tuple[str, ...]
    firmware: str
    memory_encryption: str
    applications: tuple[bytes, ...]
    kernels: tuple[bytes, ...]
    initrds: tuple[bytes, ...]
    command_lines: tuple[CommandLine, ...]
    files: tuple[bytes, ...]
    by_name: bool


def read_boot(log: EventLog, *, bank: str, quoted: Collection[int]) -> BootClaims:
    """Read what the events of quoted PCRs mean; the log must have replayed to them.

    Args:
        log: as parsed.
        bank: the quoted bank.
        quoted: the indices of the quoted PCRs of which the log tells everything (`event_log.told`).
    """
    events = _Events(log, bank, quoted)
    texts = tuple(_texts(events))
    sections = tuple(_sections(events))
    return BootClaims(
        quoted=frozenset(quoted),
        secure_boot=_secure_boot(events),
        variables=tuple(_variables(events)),
        unclosed=tuple(index for index in FIRMWARE_PCRS if index in quoted and not _is_closed(events, index)),
        firmware_flags=tuple(flag for flag in FIRMWARE_FLAGS if events.has(_SECURE_BOOT, flag.encode())),
        firmware=_firmware(events),
        memory_encryption=_memory_encryption(events),
        applications=tuple(_applications(events)),
        kernels=(*_named(sections, b".linux"), *_files_of(events, _kernel_names(texts))),
        initrds=(*_named(sections, b".initrd"), *_files_of(events, _initrd_names(texts)), *_linux_initrds(events)),
        command_lines=tuple(_command_lines(events, texts, sections)),
        files=tuple(events.digest(event) for event in events.of(_FILES)),
        by_name=bool(texts),
    )


class _Events:
    """The extended events of quoted PCRs, by PCR, in one bank."""

    def __init__(self, log: EventLog, bank: str, quoted: Collection[int]) -> None:
        self._bank = bank
        self._by_pcr: dict[int, list[Event]] = {}
        for event in log.events:
            if event.is_extended and event.pcr in quoted:
                self._by_pcr.setdefault(event.pcr, []).append(event)

    def of(self, pcr: int) -> Sequence[Event]:
        """One PCR's events, in order; none if it was not quoted."""
        return self._by_pcr.get(pcr, ())

    def before_separator(self, pcr: int) -> Sequence[Event]:
        """What firmware measured before anything else could; none if it never closed the PCR."""
        events = self.of(pcr)
        end = next((place for place, event in enumerate(events) if self.is_separator(event)), 0)
        return events[:end]

    def digest(self, event: Event) -> bytes:
        return event.digests[self._bank]

    def says(self, event: Event, data: bytes) -> bool:
        return event.says(self._bank, data)

    def is_separator(self, event: Event) -> bool:
        return any(self.says(event, data) for data in _SEPARATORS)

    def has(self, pcr: int, data: bytes) -> bool:
        return any(self.says(event, data) for event in self.of(pcr))


def _is_closed(events: _Events, pcr: int) -> bool:
    separators = [event for event in events.of(pcr) if event.kind == EV_SEPARATOR or events.is_separator(event)]
    return len(separators) == 1 and events.is_separator(separators[0])


def _measured_variables(events: _Events) -> Iterator[tuple[str, bytes, bytes]]:
    """The Secure Boot variables that firmware measured: name, value, digest."""
    for event in events.before_separator(_SECURE_BOOT):
        variable = read_variable(event.data)
        if variable is not None and events.says(event, event.data):
            yield *variable, events.digest(event)


def _secure_boot(events: _Events) -> bool | None:
    values = [value for name, value, _ in _measured_variables(events) if name == "SecureBoot"]
    return values == [b"\x01"] if len(values) == 1 else None


def _variables(events: _Events) -> Iterator[tuple[str, bytes]]:
    for name, _, digest in _measured_variables(events):
        if name in VARIABLES:
            yield name, digest


def _firmware(events: _Events) -> str:
    for event in events.before_separator(0):
        if event.data.startswith(_GCE_FIRMWARE) and events.says(event, event.data):
            return event.data.decode("utf-16-le", "replace").rstrip("\0")
    return ""


def _memory_encryption(events: _Events) -> str:
    for event in events.before_separator(0):
        if event.data.startswith(_GCE_HOST) and events.says(event, event.data):
            number = int.from_bytes(event.data[len(_GCE_HOST) :], "little")
            return _GCE_TECHNOLOGIES[number] if number < len(_GCE_TECHNOLOGIES) else f"unknown ({number})"
    return ""


def _applications(events: _Events) -> Iterator[bytes]:
    for event in events.of(_APPLICATIONS):
        if not events.is_separator(event) and not any(events.says(event, action) for action in _ACTIONS):
            yield events.digest(event)


def _texts(events: _Events) -> Iterator[tuple[bytes, Event, bool]]:
    """PCR 8's texts where they are proven, else nothing of them; and whether the log calls it a command line."""
    for event in events.of(_TEXTS):
        label = next((label for label in (_COMMAND, _COMMAND_LINE) if event.data.startswith(label)), b"")
        text = event.data[len(label) :].removesuffix(b"\0")
        yield text if events.says(event, text) else b"", event, label == _COMMAND_LINE


def _kernel_names(texts: Sequence[tuple[bytes, Event, bool]]) -> Iterator[bytes]:
    for text, _, _ in texts:
        if found := _LOADS_KERNEL.match(text):
            yield found[1]


def _initrd_names(texts: Sequence[tuple[bytes, Event, bool]]) -> Iterator[bytes]:
    for text, _, _ in texts:
        if found := _LOADS_INITRD.match(text):
            yield from found[1].split()


def _files_of(events: _Events, names: Iterator[bytes]) -> Iterator[bytes]:
    """The digests beside these names; a false name is caught, since policies list every file of PCR 9."""
    wanted = set(names)
    for event in events.of(_FILES):
        if event.data.removesuffix(b"\0") in wanted:
            yield events.digest(event)


def _linux_initrds(events: _Events) -> Iterator[bytes]:
    for event in events.of(_FILES):
        if event.kind == EV_EVENT_TAG and event.data.startswith(_LINUX_INITRD):
            yield events.digest(event)


def _sections(events: _Events) -> Iterator[tuple[bytes, bytes]]:
    """Names and digests of a unified image's sections; what follows the last pair is not the stub's."""
    measured = iter(events.of(_SECTIONS))
    for event in measured:
        name = next((name for name in _SECTIONS_OF_IMAGES if events.says(event, name + b"\0")), None)
        content = next(measured, None)
        if name is None or content is None:
            return
        yield name, events.digest(content)


def _named(sections: Sequence[tuple[bytes, bytes]], wanted: bytes) -> Iterator[bytes]:
    return (digest for name, digest in sections if name == wanted)


def _command_lines(
    events: _Events, texts: Sequence[tuple[bytes, Event, bool]], sections: Sequence[tuple[bytes, bytes]]
) -> Iterator[CommandLine]:
    for digest in _named(sections, b".cmdline"):
        yield CommandLine(digest=digest, text="")
    kernels = set(_kernel_names(texts))
    for text, event, is_called_so in texts:
        if is_called_so or not text or _NAMES_A_FILE.match(text) or text.partition(b" ")[0] in kernels:
            yield CommandLine(digest=events.digest(event), text=text.decode("utf-8", "replace"))
    for event in events.of(_CONFIGURATION):
        text = event.data.removesuffix(b"\0\0")
        is_text = events.says(event, text) or events.says(event, event.data)
        yield CommandLine(digest=events.digest(event), text=text.decode("utf-16-le", "replace") if is_text else "")
