"""Reads UEFI variables as firmware measures them (TCG PC Client Platform Firmware Profile 1.06, UEFI_VARIABLE_DATA).

Leaves out: whether the bytes were measured (tpm2/boot_events.py).
"""

from __future__ import annotations

from blindai.attestation.exact_reader import ExactReader

# UEFI_VARIABLE_DATA: GUID[16] ‖ u64 name's characters ‖ u64 value's bytes ‖ name in UTF-16 ‖ value, little-endian.
_GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")  # UEFI 2.10, EFI_GLOBAL_VARIABLE
_DATABASE = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")  # UEFI 2.10, EFI_IMAGE_SECURITY_DATABASE_GUID
_NAMESPACES = {"SecureBoot": _GLOBAL, "PK": _GLOBAL, "KEK": _GLOBAL, "db": _DATABASE, "dbx": _DATABASE}
VARIABLES = ("PK", "KEK", "db", "dbx")


def read_variable(data: bytes) -> tuple[str, bytes] | None:
    """Name and value of a Secure Boot variable in its own namespace; None for anything else."""
    reader = ExactReader(data, "little")
    try:
        namespace = reader.take(16, "the namespace")
        characters, size = reader.number(8, "the name's length"), reader.number(8, "the value's length")
        name = reader.take(2 * characters, "the name").decode("utf-16-le")
        value = reader.take(size, "the value")
        reader.finish("the variable")
    except ValueError:
        return None
    return (name, value) if _NAMESPACES.get(name) == namespace else None
