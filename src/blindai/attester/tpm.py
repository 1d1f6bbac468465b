"""Makes evidence with a TPM 2.0: all its PCRs quoted over the binding (the mirror of attestation/tee/tpm.py).

The attestation key is a primary one of the endorsement hierarchy, and so the same until somebody clears the TPM: who
trusts the machine can name it. Who trusts the TPM's maker can ask instead whether the TPM of an endorsement key (EK)
holds it: `endorsement` shows the EK's chain, and `activate` answers.
Leaves out: certificates of the attestation key, which only clouds give.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.attestation.binding import report_data_32
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.tpm import TEE, TpmEvidence, encode
from blindai.attestation.tpm2.attestation_key import ENDORSEMENT
from blindai.attestation.tpm2.credential import activation_answer
from blindai.attestation.tpm2.event_log import MAX_LOG_BYTES
from blindai.attestation.tpm2.keys import parse_public
from blindai.attestation.tpm2.quote import PCRS, parse_quote
from blindai.attester.tpm2 import commands, endorsement
from blindai.attester.tpm2.ek_chain import ek_endorsements
from blindai.errors import AttesterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.tpm2.credential import Credential

EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
_ALL_PCRS = tuple(PCRS)
_ATTEMPTS = 4  # something may be measured between a quote and the reading of what it quotes


class TpmAttester:
    """A TPM as `attester.Attester`.

    Args:
        send: carries a command to the TPM, for example `device.open_tpm`'s.
        event_log: as the kernel shows the firmware's; a file that is not there is no log.
        ek_issuers: the CAs above the TPM's EK certificate, in PEM, read again for each quote, since revocation lists
            in it get old; without it no EK is shown, and no credential opened.
        random: source of the nonces of sessions.

    Raises:
        AttesterError: issuers are given, and the TPM has no EK certificate.
    """

    tee = TEE

    def __init__(
        self,
        send: Callable[[bytes], bytes],
        event_log: Path = EVENT_LOG,
        *,
        ek_issuers: Path | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._send = send
        self._event_log = event_log
        self._random = random
        self._ek_issuers = ek_issuers
        self._ek = None if ek_issuers is None else endorsement.certified_key(send)

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
        return EvidenceItem(tee=TEE, evidence=encode(evidence), endorsements=self._endorsements())

    def activate(self, credential: Credential) -> bytes:
        """What proves that this TPM holds both the EK that it shows and the key that quotes, 32 bytes; may block.

        Raises:
            CredentialRefusedError: the credential is for other keys, or was changed.
            AttesterError: the TPM shows no EK, does not answer, or cannot do it now.
        """
        if self._ek is None:
            raise AttesterError("this server shows no endorsement key of its TPM")
        secret, ak_public = endorsement.activate(self._send, self._ek, credential, self._random)
        return activation_answer(secret, parse_public(ak_public, tee=TEE).name)

    @property
    def can_activate(self) -> bool:
        """Whether it shows an EK, so that `activate` may be called."""
        return self._ek is not None

    def _endorsements(self) -> tuple[tuple[str, bytes], ...]:
        if self._ek is None or self._ek_issuers is None:
            return ()
        return ek_endorsements(self._ek.certificate, self._ek_issuers)

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
