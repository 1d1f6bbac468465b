"""`Attestation`: what was verified about a server, for people and for code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blindai.attestation.evidence import Claims, Finding
    from blindai.channel.attested import AttestedKeyset
    from blindai.channel.keyset import Keyset


@dataclass(frozen=True, slots=True)
class Attestation:
    """A verified server. Everything here was checked by this client; nothing is the server's bare word."""

    _keyset: AttestedKeyset = field(repr=False)

    @property
    def level(self) -> str:
        """`fresh`, `cached`, `pinned-tls` or `simulated`, as this client found."""
        return self._keyset.level.text

    @property
    def simulated(self) -> bool:
        """Whether no hardware stands behind this: then nothing is protected."""
        return self._keyset.result.simulated

    @property
    def claims(self) -> tuple[Claims, ...]:
        """What the evidence says of the machine and its software, an item per TEE."""
        return self._keyset.result.claims

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every check, with its outcome and why it matters."""
        return self._keyset.result.findings

    @property
    def keyset(self) -> Keyset:
        """The attested keys, and the runtime policy that the server promises."""
        return self._keyset.keyset

    def explain(self) -> str:
        """Every check on a line: passed, failed or skipped, and why it matters."""
        head = f"level {self.level}: service {self.keyset.service!r}, software {self.keyset.software.name} "
        warning = "\nSIMULATION PROTECTS NOTHING: anybody can make this evidence." if self.simulated else ""
        return f"{head}{self.keyset.software.version}{warning}\n{self._keyset.result.explain()}"
