"""The bits that a guest's owner and a host's firmware set, each with its name in policies and why one would care.

A flag's name is its policy field, and its finding is `sev_snp.<name>`. Bits by AMD document 56860 revision 1.58, tables
"Guest Policy" and ATTESTATION_REPORT (PLATFORM_INFO).
Leaves out: what else a report says (amd/report.py) and how it is judged (tee/sev_snp.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One bit of a word of the report."""

    name: str
    bit: int
    why: str
    hint: str

    def is_set(self, word: int) -> bool:
        """Whether the bit is one."""
        return bool(word >> self.bit & 1)


def _guest(name: str, bit: int, why: str) -> Flag:
    hint = "whoever launches the guest sets this in its policy: ask the operator to launch it as yours demands"
    return Flag(name=name, bit=bit, why=why, hint=hint)


def _platform(name: str, bit: int, why: str) -> Flag:
    hint = "the host's firmware sets this: ask its operator for other BIOS settings, or for newer firmware"
    return Flag(name=name, bit=bit, why=why, hint=hint)


GUEST_POLICY_FLAGS = (
    _guest("smt_allowed", 16, "With SMT another thread of the same core can watch caches and ports."),
    _guest("migrate_ma", 18, "A migration agent can move the guest, and so holds its memory and keys."),
    _guest("debug", 19, "The host may read and write the memory of a guest that allows debugging."),
    _guest("single_socket", 20, "A guest on one socket keeps its data off the links between sockets."),
    _guest("cxl_allowed", 21, "Memory and devices on CXL stand outside the processor's own protection."),
    _guest("aes_256_xts", 22, "Memory encrypted with AES-256-XTS hides more than with AES-128-XEX."),
    _guest("rapl_dis", 23, "Power readings (RAPL) tell the host what the guest computes."),
    _guest("ciphertext_hiding", 24, "A host that sees ciphertext change learns what the guest writes."),
    _guest("page_swap_disable", 25, "Pages that the host may swap and move tell it when they are used."),
)

PLATFORM_FLAGS = (
    _platform("smt_enabled", 0, "With SMT another thread of the same core can watch caches and ports."),
    _platform("tsme_enabled", 1, "TSME encrypts all of the machine's memory, the host's too."),
    _platform("ecc_enabled", 2, "Without ECC, flipped bits in memory go unnoticed."),
    _platform("rapl_disabled", 3, "Power readings (RAPL) tell the host what the guest computes."),
    _platform("ciphertext_hiding_enabled", 4, "A host that sees ciphertext change learns what the guest writes."),
    _platform(
        "alias_check_complete",
        5,
        "Memory modules that lie about their size let the host reach the guest's memory twice (BadRAM, AMD-SB-3015).",
    ),
    _platform("tio_enabled", 7, "Trusted I/O lets devices into the guest's trust."),
)


def unknown_bits(platform_info: int) -> tuple[int, ...]:
    """Bits of PLATFORM_INFO that are set and not in the table, in order; newer firmware may set some."""
    known = {flag.bit for flag in PLATFORM_FLAGS}
    return tuple(bit for bit in range(platform_info.bit_length()) if platform_info >> bit & 1 and bit not in known)
