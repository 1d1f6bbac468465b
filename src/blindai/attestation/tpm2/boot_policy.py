"""What a policy may say about a boot, as the event log tells it; every answer is judged whole.

Codes begin with the TEE's name. Without an event log every check that the policy does not leave out fails.
Leaves out: what the log says (tpm2/boot_events.py), PCR values (tpm2/pcr_policy.py).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.expectations import judge_flag, judge_names, one_of, read_accepted, read_flag, read_names
from blindai.attestation.policy_file import Skip
from blindai.attestation.tpm2.boot_events import FIRMWARE_FLAGS, FIRMWARE_PCRS
from blindai.attestation.tpm2.keys import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section
    from blindai.attestation.tpm2.boot_events import BootClaims

_HINT = "the machine booted something else than the policy names; find out what before changing the policy"

# Linux, systemd and dracut, and Google's confidential GKE nodes; a name that ends in = or / is a beginning, and any
# other stands alone or before a value of its own.
DEBUG_ARGUMENTS = (
    *("systemd.debug-shell", "systemd.debug_shell", "rd.shell", "rd.break", "rd.break=", "rd.emergency=", "break="),
    *("systemd.unit=emergency.target", "systemd.unit=rescue.target", "emergency", "rescue", "single"),
    *("1", "s", "S", "-b", "systemd.run=", "rdinit=/bin/", "rdinit=/usr/bin/"),
    *("init=/bin/", "init=/usr/bin/", "kgdboc=", "kgdbwait", "confidential-gke.hardened=false"),
    "an unknown command line",
)
_UNKNOWN = DEBUG_ARGUMENTS[-1]
_SLASHES = re.compile("/+")


@dataclass(frozen=True, slots=True, kw_only=True)
class BootExpectation:
    """What a policy accepts of a boot; digests are of the policy's bank.

    Attributes:
        initrd: an empty list accepts no initrd at all.
        command_line: texts.
        boot_files: what the loader may read beside kernel and initrd: its configuration, modules and fonts.
        firmware_flags: those of `boot_events.FIRMWARE_FLAGS` that are tolerated.
        debug_arguments: those of `DEBUG_ARGUMENTS` that are tolerated in a command line that is not named whole.
    """

    secure_boot: bool | Skip
    firmware_closed: bool | Skip
    firmware_flags: tuple[str, ...] | Skip
    boot_applications: tuple[bytes, ...] | Skip
    kernel: tuple[bytes, ...] | Skip
    initrd: tuple[bytes, ...] | Skip
    command_line: tuple[str, ...] | Skip
    boot_files: tuple[bytes, ...] | Skip
    debug_arguments: tuple[str, ...] | Skip


def read_boot_expectation(section: Section, *, bank: str) -> BootExpectation:
    """The fields `BOOT_FIELDS` of a TEE's table.

    Raises:
        InvalidPolicyError: a field is another.
    """
    size = DIGEST_BYTES[bank]
    return BootExpectation(
        secure_boot=read_flag(section, "secure_boot"),
        firmware_closed=read_flag(section, "firmware_closed"),
        firmware_flags=read_names(section, "firmware_flags", FIRMWARE_FLAGS),
        boot_applications=read_accepted(section, "boot_applications", size),
        kernel=read_accepted(section, "kernel", size),
        initrd=_read_any_number(section, "initrd", size),
        command_line=read_names(section, "command_line"),
        boot_files=_read_any_number(section, "boot_files", size),
        debug_arguments=read_names(section, "debug_arguments", DEBUG_ARGUMENTS),
    )


def _read_any_number(section: Section, key: str, size: int) -> tuple[bytes, ...] | Skip:
    return () if section.members[key] == [] else read_accepted(section, key, size)


def judge_boot(expectation: BootExpectation, boot: BootClaims | None, *, bank: str, tee: str) -> Iterator[Finding]:
    """Compare a boot with the policy: one finding for each of `BOOT_FIELDS`, coded `<tee>.<field>`.

    Args:
        expectation: what the policy accepts.
        boot: what the event log says, or None without one.
        bank: the quoted bank.
        tee: the first half of the codes.
    """
    for field, check in _CHECKS.items():
        words = _Words(code=f"{tee}.{field}", why=check.why)
        unknown = "no event log" if boot is None else _not_quoted(check.needed, boot.quoted)
        if boot is None or unknown:
            yield _judge_unknown(getattr(expectation, field), unknown, words)
        else:
            yield check.judge(expectation, boot, bank, words)


class _Words(TypedDict):
    code: str
    why: str


def _not_quoted(needed: Collection[int], quoted: Collection[int]) -> str:
    missing = [str(index) for index in needed if index not in quoted]
    return f"PCRs {', '.join(missing)} not quoted, or left out of the log" if missing else ""


def _judge_unknown(accepted: object, found: str, words: _Words) -> Finding:
    if isinstance(accepted, Skip):
        return leave_out(reason=accepted.reason, found=found, **words)
    hint = "let the server send its event log and quote these PCRs, or leave the check out with a reason"
    return judge(holds=False, expected="an event log of quoted PCRs", found=found, hint=hint, **words)


def _judge_secure_boot(expectation: BootExpectation, boot: BootClaims, _: str, words: _Words) -> Finding:
    return judge_flag(expectation.secure_boot, found=boot.secure_boot is True, hint=_HINT, **words)


def _judge_closed(expectation: BootExpectation, boot: BootClaims, _: str, words: _Words) -> Finding:
    return judge_flag(expectation.firmware_closed, found=not boot.unclosed, hint=_HINT, **words)


def _judge_flags(expectation: BootExpectation, boot: BootClaims, _: str, words: _Words) -> Finding:
    return judge_names(expectation.firmware_flags, found=boot.firmware_flags, hint=_HINT, **words)


def _judge_applications(expectation: BootExpectation, boot: BootClaims, _: str, words: _Words) -> Finding:
    return _judge_digests(expectation.boot_applications, boot.applications, words)


def _judge_kernel(expectation: BootExpectation, boot: BootClaims, _: str, words: _Words) -> Finding:
    return _judge_loaded(expectation, boot, "kernel", words)


def _judge_initrd(expectation: BootExpectation, boot: BootClaims, _: str, words: _Words) -> Finding:
    return _judge_loaded(expectation, boot, "initrd", words)


def _judge_loaded(
    expectation: BootExpectation, boot: BootClaims, kind: Literal["kernel", "initrd"], words: _Words
) -> Finding:
    """A name of GRUB's proves its file only where `boot_files` leaves no other file for it."""
    accepted, found = {
        "kernel": (expectation.kernel, boot.kernels),
        "initrd": (expectation.initrd, boot.initrds),
    }[kind]
    if isinstance(accepted, Skip) or not (boot.by_name and isinstance(expectation.boot_files, Skip)):
        return _judge_digests(accepted, found, words)
    return judge(
        holds=False,
        expected="a file that the log proves, or `boot_files`",
        found="names in the log, which prove nothing while other files are not judged",
        hint="name the loader's other files in `boot_files`; who pins PCR 9 can leave this check out, too",
        **words,
    )


def _judge_digests(accepted: tuple[bytes, ...] | Skip, found: tuple[bytes, ...], words: _Words) -> Finding:
    """Each digest found is accepted; and there is one, unless none is accepted."""
    text = ", ".join(digest.hex() for digest in found) or "none"
    if isinstance(accepted, Skip):
        return leave_out(reason=accepted.reason, found=text, **words)
    return judge(
        holds=all(digest in accepted for digest in found) and bool(found) == bool(accepted),
        expected=one_of(digest.hex() for digest in accepted) if accepted else "none",
        found=text,
        hint=_HINT,
        **words,
    )


def _judge_command_lines(expectation: BootExpectation, boot: BootClaims, bank: str, words: _Words) -> Finding:
    accepted, found = expectation.command_line, boot.command_lines
    text = " and ".join(line.text or f"digest {line.digest.hex()}" for line in found) or "none"
    if isinstance(accepted, Skip):
        return leave_out(reason=accepted.reason, found=text, **words)
    digests = _digests_of(accepted, bank)
    return judge(
        holds=bool(found) and all(line.digest in digests for line in found),
        expected=one_of(accepted) if accepted else "one that the policy names",
        found=text,
        hint=_HINT,
        **words,
    )


def _digests_of(texts: tuple[str, ...] | Skip, bank: str) -> frozenset[bytes]:
    """What loaders measure of a command line: GRUB and systemd-stub its bytes, others what they pass to the kernel."""
    if isinstance(texts, Skip):
        return frozenset()
    forms: list[bytes] = []
    for text in texts:
        wide = text.encode("utf-16-le")
        passed = f"BOOT_IMAGE={text}".encode("utf-16-le")  # GRUB's words before what it passes on
        forms += text.encode(), text.encode() + b"\0", wide, wide + b"\0\0", passed
    return frozenset(hashlib.new(bank, form).digest() for form in forms)


def _judge_files(expectation: BootExpectation, boot: BootClaims, bank: str, words: _Words) -> Finding:
    accepted = expectation.boot_files
    if isinstance(accepted, Skip):
        return leave_out(reason=accepted.reason, found=f"{len(boot.files)} files", **words)
    known = {*accepted, *_digests_of(expectation.command_line, bank)}
    for others in (expectation.kernel, expectation.initrd):
        known.update(() if isinstance(others, Skip) else others)
    foreign = [digest.hex() for digest in boot.files if digest not in known]
    return judge(
        holds=not foreign,
        expected="none but kernel, initrd, command line and boot_files of the policy",
        found=", ".join(foreign) or f"{len(boot.files)} files, all of them known",
        hint=_HINT,
        **words,
    )


def _judge_debug_arguments(expectation: BootExpectation, boot: BootClaims, bank: str, words: _Words) -> Finding:
    """The debug arguments of every command line that the policy does not name whole; there is always one."""
    named = _digests_of(expectation.command_line, bank)
    texts = [line.text for line in boot.command_lines if line.digest not in named]
    found = tuple(argument for text in texts for argument in _debug_arguments(text))
    if not boot.command_lines:
        found = (_UNKNOWN,)
    return judge_names(expectation.debug_arguments, found=found, hint=_HINT, **words)


def _debug_arguments(text: str) -> Iterator[str]:
    if not text:
        yield _UNKNOWN
    words = [_SLASHES.sub("/", word.replace('"', "").replace("'", "")) for word in text.split()]  # as Linux takes them
    suspects = [word for word in words if word.startswith(DEBUG_ARGUMENTS)]
    yield from (argument for argument in DEBUG_ARGUMENTS if any(_is_argument(word, argument) for word in suspects))


def _is_argument(word: str, argument: str) -> bool:
    if argument.endswith(("=", "/")):
        return word.startswith(argument)
    return word == argument or (word.startswith(f"{argument}=") and f"{argument}=" not in DEBUG_ARGUMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """One field's check: the PCRs that must be quoted to know, why it matters, and the comparison."""

    needed: Collection[int]
    why: str
    judge: Callable[[BootExpectation, BootClaims, str, _Words], Finding]


# By field, which is also the second half of its code.
_CHECKS = {
    "secure_boot": _Check(
        needed=(7,),
        why="Without Secure Boot anything may have been started, signed or not.",
        judge=_judge_secure_boot,
    ),
    "firmware_closed": _Check(
        needed=FIRMWARE_PCRS,
        why="What firmware never closed may hold what only looks like its measurements.",
        judge=_judge_closed,
    ),
    "firmware_flags": _Check(
        needed=(7,),
        why="Firmware that can be debugged, or that lets devices write to memory, guards nothing.",
        judge=_judge_flags,
    ),
    "boot_applications": _Check(
        needed=(4,),
        why="What firmware started decides what is measured later.",
        judge=_judge_applications,
    ),
    "kernel": _Check(
        needed=(8, 9, 11),
        why="The kernel can read everything that the server can.",
        judge=_judge_kernel,
    ),
    "initrd": _Check(
        needed=(8, 9, 11),
        why="The initrd runs first, as root, and checks the rest of the system.",
        judge=_judge_initrd,
    ),
    "command_line": _Check(
        needed=(8, 11, 12),
        why="A command line can replace init, or switch off what checks the disk.",
        judge=_judge_command_lines,
    ),
    "boot_files": _Check(
        needed=(9,),
        why="Names in the log are not proven, so a file is known only if every file is.",
        judge=_judge_files,
    ),
    "debug_arguments": _Check(
        needed=(8, 11, 12),
        why="These arguments open a shell at the console, or switch protection off.",
        judge=_judge_debug_arguments,
    ),
}
BOOT_FIELDS = tuple(_CHECKS)
