"""Makes evidence with a TPM 2.0: all its PCRs quoted over the binding (the mirror of attestation/tee/tpm.py).

The attestation key is a primary one of the endorsement hierarchy, and so the same until somebody clears the TPM: who
trusts the machine can name it. Leaves out: certificates of that key, which only clouds give, and credential activation.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.attestation.binding import report_data_32
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.tpm import TEE, TpmEvidence, encode
from blindai.attestation.tpm2.attestation_key import ENDORSEMENT
from blindai.attestation.tpm2.event_log import MAX_LOG_BYTES
from blindai.attestation.tpm2.quote import PCRS, parse_quote
from blindai.attester.tpm2 import commands
from blindai.errors import AttesterError

if TYPE_CHECKING:
    from collections.abc import Callable

EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
_ALL_PCRS = tuple(PCRS)
_ATTEMPTS = 4  # something may be measured between a quote and the reading of what it quotes


class TpmAttester:
    """A TPM as `attester.Attester`.

    Args:
        send: carries a command to the TPM, for example `device.open_tpm`'s.
        event_log: as the kernel shows the firmware's; a file that is not there is no log.
    """

    tee = TEE

    def __init__(self, send: Callable[[bytes], bytes], event_log: Path = EVENT_LOG) -> None:
        self._send = send
        self._event_log = event_log

    def attest(self, bound: bytes) -> EvidenceItem:
        """A quote that carries `bound` in its 32 bytes, with the values and the log that explain it.

        Raises:
            AttesterError: the TPM does not answer, its PCRs change all the time, or the event log cannot be read whole.
        """
        with commands.attestation_key(self._send) as (key, public):
            quoted, signature, values = self._quote(key, report_data_32(bound))
        evidence = TpmEvidence(
            quote=quoted,
            signature=signature,
            ak_public=public,
            ak_parent=ENDORSEMENT,
            pcr_values=values,
            event_log=self._read_event_log(),
        )
        return EvidenceItem(tee=TEE, evidence=encode(evidence), endorsements=())

    def _quote(self, key: int, extra_data: bytes) -> tuple[bytes, bytes, bytes]:
        for _ in range(_ATTEMPTS):
            quoted, signature = commands.quote(self._send, key, extra_data, _ALL_PCRS)
            values = b"".join(commands.read_pcrs(self._send, _ALL_PCRS))
            if hashlib.sha256(values).digest() == parse_quote(quoted, tee=TEE).pcr_digest:
                return quoted, signature, values
        raise AttesterError("the TPM's PCRs change faster than they can be read")

    def _read_event_log(self) -> bytes:
        """All of it: one that is cut, or left out because it cannot be read, explains nothing to anybody."""
        try:
            with self._event_log.open("rb") as file:
                log = file.read(MAX_LOG_BYTES + 1)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise AttesterError(
                f"the firmware's event log cannot be read: {self._event_log}: {error.strerror}",
                hint="Linux lets root alone read it: let the server's group read it too, at each boot (`chgrp`)",
            ) from None
        if len(log) > MAX_LOG_BYTES:
            raise AttesterError(f"the firmware's event log has more than the {MAX_LOG_BYTES} bytes that clients read")
        return log
