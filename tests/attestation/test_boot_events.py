"""What an event log says about a boot: only digests that were extended count, and never what the log calls them."""

from __future__ import annotations

import pytest
from fakes.tpm_boot import (
    ACTION,
    APPLICATION,
    CALLING,
    COMMAND_LINE,
    CONFIGURATION,
    DATABASE,
    GLOBAL,
    HOST,
    INITRD,
    IPL,
    KERNEL,
    LOADER,
    NO_ACTION,
    SEPARATOR,
    TAG,
    VARIABLE,
    VERSION,
    FakeBoot,
    digest,
    firmware,
    grub,
    grub_command,
    stub,
    variable,
    wide,
)

from blindai.attestation.tpm2.boot_events import BootClaims, CommandLine, read_boot
from blindai.attestation.tpm2.event_log import parse_event_log
from blindai.attestation.tpm2.secure_boot import read_variable

LINE = CommandLine(digest=digest(COMMAND_LINE.encode()), text=COMMAND_LINE)


def boot_of(boot: FakeBoot, quoted: tuple[int, ...] = tuple(range(24))) -> BootClaims:
    return read_boot(parse_event_log(boot.log(), tee="tpm"), bank="sha256", quoted=quoted)


def text(words: str) -> CommandLine:
    return CommandLine(digest=digest(words.encode()), text=words)


def test_googles_firmware_says_who_it_is_and_what_it_was_told() -> None:
    claims = boot_of(firmware())
    assert (claims.firmware, claims.memory_encryption) == ("GCE Virtual Firmware v2", "AMD SEV-SNP")
    assert claims.secure_boot is True
    assert claims.variables == tuple(
        (name, digest(variable(name, f"signatures of {name}".encode(), namespace)))
        for name, namespace in (("PK", GLOBAL), ("KEK", GLOBAL), ("db", DATABASE), ("dbx", DATABASE))
    )
    assert (claims.unclosed, claims.firmware_flags, claims.applications) == ((), (), ())


def test_what_grub_loaded_is_told() -> None:
    claims = boot_of(grub(firmware()))
    assert claims.applications == (digest(LOADER),)
    assert claims.kernels == (digest(KERNEL),)
    assert claims.initrds == (digest(INITRD),) * 2  # once by GRUB, once by Linux
    assert claims.command_lines == (LINE,)
    assert claims.files[:2] == (digest(CONFIGURATION), digest(KERNEL))
    assert len(claims.files) == 5
    assert boot_of(grub(firmware(), with_initrd=False)).initrds == ()


def test_what_a_unified_image_has_is_told_by_its_measured_section_names() -> None:
    claims = boot_of(stub(firmware()))
    assert claims.kernels == (digest(KERNEL),)
    assert claims.initrds == (digest(INITRD),) * 2
    assert claims.command_lines == (CommandLine(digest=LINE.digest, text=""),)


def test_sections_end_where_something_else_was_measured() -> None:
    boot = FakeBoot().extend(11, IPL, b"", measured=b".linux\0").extend(11, IPL, b"", measured=KERNEL)
    boot.extend(11, IPL, b"", measured=b"enter-initrd")
    boot.extend(11, IPL, b"", measured=b".initrd\0").extend(11, IPL, b"", measured=INITRD)
    assert (boot_of(boot).kernels, boot_of(boot).initrds) == ((digest(KERNEL),), ())
    assert boot_of(FakeBoot().extend(11, IPL, b"", measured=b".linux\0")).kernels == ()
    pairs = FakeBoot()
    for measured in (b"enter-initrd", b"leave-initrd", b".linux\0", KERNEL):
        pairs.extend(11, IPL, b"", measured=measured)
    assert boot_of(pairs).kernels == ()


def test_what_is_recorded_and_not_extended_says_nothing() -> None:
    boot = firmware(secure=0)
    on = variable("SecureBoot", b"\x01")
    for pcr, data in ((4, LOADER), (7, on), (7, b"UEFI Debug Mode"), (9, KERNEL)):
        boot.events.insert(0, FakeBoot.event(pcr, NO_ACTION, {bank: digest(data, bank) for bank in boot.banks}, data))
    claims = boot_of(boot)
    assert (claims.secure_boot, claims.firmware_flags, claims.applications, claims.files) == (False, (), (), ())


def test_another_event_of_linux_is_no_initrd() -> None:
    data = 0x8F3B22EC.to_bytes(4, "little")
    assert boot_of(FakeBoot().extend(9, IPL, data, measured=INITRD)).initrds == ()
    assert boot_of(FakeBoot().extend(9, TAG, data, measured=INITRD)).initrds == (digest(INITRD),)


def test_nothing_is_read_of_pcrs_that_are_not_quoted() -> None:
    claims = boot_of(stub(grub(firmware(flags=("UEFI Debug Mode",)))), quoted=(1,))
    assert claims.quoted == {1}
    assert claims.unclosed == ()
    assert (claims.secure_boot, claims.variables, claims.firmware_flags) == (None, (), ())
    assert (claims.firmware, claims.memory_encryption) == ("", "")
    assert (claims.applications, claims.kernels, claims.initrds, claims.command_lines, claims.files) == ((),) * 5


def test_flags_of_the_firmware_are_found_by_what_was_measured() -> None:
    boot = firmware(flags=("DMA Protection Disabled",))
    boot.extend(7, ACTION, b"harmless", measured=b"UEFI Debug Mode")
    assert boot_of(boot).firmware_flags == ("UEFI Debug Mode", "DMA Protection Disabled")


@pytest.mark.parametrize(
    ("value", "namespace", "secure_boot"),
    [(b"\x01", GLOBAL, True), (b"\x00", GLOBAL, False), (b"\x01\x00", GLOBAL, False), (b"\x01", DATABASE, None)],
)
def test_secure_boot_is_on_only_if_the_variable_is_one(*, value: bytes, namespace: bytes, secure_boot: bool) -> None:
    boot = FakeBoot().extend(7, VARIABLE, variable("SecureBoot", value, namespace)).extend(7, SEPARATOR, bytes(4))
    assert boot_of(boot).secure_boot is secure_boot


def test_secure_boot_counts_only_once_and_before_firmware_closed_the_pcr() -> None:
    on = variable("SecureBoot", b"\x01")
    never_closed = FakeBoot().extend(7, VARIABLE, on)
    late = FakeBoot().extend(7, SEPARATOR, bytes(4)).extend(7, VARIABLE, on)
    twice = FakeBoot().extend(7, VARIABLE, on).extend(7, VARIABLE, on).extend(7, SEPARATOR, bytes(4))
    lie = FakeBoot().extend(7, VARIABLE, on, measured=variable("SecureBoot", b"\x00")).extend(7, SEPARATOR, bytes(4))
    never_closed_and_more = FakeBoot().extend(7, VARIABLE, on).extend(7, ACTION, b"x")
    for boot in (never_closed, never_closed_and_more, late, twice, lie):
        assert boot_of(boot).secure_boot is None


def test_a_separator_is_one_good_one_whatever_the_log_calls_it() -> None:
    good = firmware()
    assert boot_of(good).unclosed == ()
    assert boot_of(good.extend(2, ACTION, b"x", measured=b"\xff\xff\xff\xff")).unclosed == (2,)
    assert boot_of(FakeBoot().extend(3, SEPARATOR, b"\x01\0\0\0")).unclosed == tuple(range(8))
    assert boot_of(firmware().extend(0, SEPARATOR, b"\x01\0\0\0")).unclosed == (0,)
    assert boot_of(firmware().extend(0, SEPARATOR, bytes(4), measured=b"error")).unclosed == (0,)


def test_everything_in_pcr_4_that_is_no_announcement_is_an_application() -> None:
    boot = firmware().extend(4, ACTION, CALLING, measured=b"evil").extend(4, APPLICATION, b"", measured=LOADER)
    assert boot_of(boot).applications == (digest(b"evil"), digest(LOADER))


def test_a_command_line_cannot_hide_as_a_command() -> None:
    boot = FakeBoot()
    for words in ("/vmlinuz evil", "(hd0,1)/vmlinuz evil", "0+99 evil", '"/v m" evil', "'/v m'", "\\/v", "+9 evil"):
        grub_command(boot, words)
    grub_command(boot, "set x=y")
    grub_command(boot, "insmod x", "kernel_cmdline: ")
    found = boot_of(boot).command_lines
    assert len(found) == 8
    assert found[0] == text("/vmlinuz evil")
    assert found[-1] == text("insmod x")


def test_a_command_line_of_a_kernel_from_the_network_cannot_hide_as_a_command() -> None:
    """There GRUB takes names without a slash (grub-core/kern/file.c), and what the log calls a text proves nothing."""
    boot = FakeBoot()
    grub_command(boot, "linux vmlinuz init=/bin/sh")
    grub_command(boot, "vmlinuz init=/bin/sh")
    assert boot_of(boot).command_lines == (text("vmlinuz init=/bin/sh"),)


def test_a_text_that_was_not_measured_is_an_unknown_command_line() -> None:
    boot = FakeBoot().extend(8, IPL, b"grub_cmd: set x=y\0", measured=b"/vmlinuz evil")
    assert boot_of(boot).command_lines == (CommandLine(digest=digest(b"/vmlinuz evil"), text=""),)


def test_a_text_that_has_no_label_is_read_whole() -> None:
    boot = FakeBoot().extend(8, IPL, b"/vmlinuz evil\0", measured=b"/vmlinuz evil")
    assert boot_of(boot).command_lines == (text("/vmlinuz evil"),)


def test_a_kernels_name_counts_only_if_grub_measured_the_command() -> None:
    boot = FakeBoot().extend(8, IPL, b"grub_cmd: linux /vmlinuz\0", measured=b"other")
    assert boot_of(boot.extend(9, IPL, b"/vmlinuz\0", measured=KERNEL)).kernels == ()
    for command in ("linux", "linuxefi", "linux16"):
        boot = FakeBoot()
        grub_command(boot, f"{command} /vmlinuz ro")
        assert boot_of(boot.extend(9, IPL, b"/vmlinuz\0", measured=KERNEL)).kernels == (digest(KERNEL),)


def test_every_initrd_that_grub_named_is_told() -> None:
    boot = FakeBoot()
    grub_command(boot, "initrd /microcode.img /initrd.img")
    boot.extend(9, IPL, b"/microcode.img\0", measured=b"1").extend(9, IPL, b"/initrd.img\0", measured=b"2")
    boot.extend(9, IPL, b"initrd\0", measured=b"3")
    assert boot_of(boot).initrds == (digest(b"1"), digest(b"2"))


def test_everything_in_pcr_12_counts_as_a_command_line() -> None:
    boot = FakeBoot().extend(12, IPL, wide("evil\0"), measured=wide("evil"))
    boot.extend(12, IPL, wide("whole\0")).extend(12, IPL, wide("Credentials initrd\0"), measured=b"cpio")
    assert [line.text for line in boot_of(boot).command_lines] == ["evil", "whole", ""]


@pytest.mark.parametrize(
    ("number", "words"), [(0, "none"), (1, "AMD SEV"), (2, "AMD SEV-ES"), (3, "Intel TDX"), (5, "unknown (5)")]
)
def test_the_hosts_word_about_memory_is_told(number: int, words: str) -> None:
    boot = FakeBoot().extend(0, HOST, b"GCE NonHostInfo\0" + bytes([number]).ljust(16, b"\0"))
    assert boot_of(boot).memory_encryption == ""
    assert boot_of(boot.extend(0, SEPARATOR, bytes(4))).memory_encryption == words


def test_texts_about_the_firmware_that_were_not_measured_say_nothing() -> None:
    boot = FakeBoot().extend(0, VERSION, wide("GCE Virtual Firmware v9\0"), measured=b"older")
    boot.extend(0, HOST, b"GCE NonHostInfo\0" + bytes([4]).ljust(16, b"\0"), measured=b"none")
    claims = boot_of(boot.extend(0, SEPARATOR, bytes(4)))
    assert (claims.firmware, claims.memory_encryption) == ("", "")
    other = FakeBoot().extend(0, VERSION, wide("Another firmware\0")).extend(0, SEPARATOR, bytes(4))
    assert boot_of(other).firmware == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        variable("SecureBoot", b"\x01")[:-1],
        variable("SecureBoot", b"\x01") + b"\0",
        variable("Boot0000", b"\x01"),
        variable("db", b"\x01"),
        GLOBAL + b"\xff" * 8 + bytes(8),
        GLOBAL + (1).to_bytes(8, "little") + bytes(8) + b"\x00\xd8",
    ],
)
def test_what_is_no_secure_boot_variable_is_none(data: bytes) -> None:
    assert read_variable(data) is None


def test_a_secure_boot_variable_is_read() -> None:
    assert read_variable(variable("dbx", b"hashes", DATABASE)) == ("dbx", b"hashes")
