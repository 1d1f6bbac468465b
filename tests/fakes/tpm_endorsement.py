"""An endorsement key in software: it opens credentials by another path than the one that makes them."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from blindai.attester.tpm2.endorsement import CredentialRefusedError

if TYPE_CHECKING:
    from blindai.attestation.tpm2.credential import Credential

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
IDENTITY = b"IDENTITY\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareEk:
    """What TPM2_ActivateCredential does with an EK and an AK that are loaded."""

    key: Private
    ak_name: bytes

    def open(self, credential: Credential) -> bytes:
        """The secret.

        Raises:
            CredentialRefusedError: the credential is for another EK or another AK.
        """
        try:
            seed = self._seed(credential.encrypted_seed)
        except ValueError:
            raise CredentialRefusedError("another EK's") from None
        tag, encrypted = credential.blob[2:34], credential.blob[34:]
        if tag != hmac.digest(derived(seed, b"INTEGRITY", b"", 32), encrypted + self.ak_name, "sha256"):
            raise CredentialRefusedError("another AK's")
        decryptor = Cipher(AES(derived(seed, b"STORAGE", self.ak_name, 16)), CFB(bytes(16))).decryptor()
        opened = decryptor.update(encrypted)
        assert (credential.blob[:2], opened[:2]) == (b"\x00\x20", b"\x00\x20")
        return opened[2:]

    def _seed(self, encrypted: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=IDENTITY)
            return self.key.decrypt(encrypted, oaep)
        x, y = encrypted[2:34], encrypted[36:68]
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + x + y)
        own = self.key.public_key().public_numbers().x.to_bytes(32, "big")
        kdf = ConcatKDFHash(algorithm=hashes.SHA256(), length=32, otherinfo=IDENTITY + x + own)
        return kdf.derive(self.key.exchange(ec.ECDH(), point))


def derived(seed: bytes, purpose: bytes, context: bytes, size: int) -> bytes:
    """KDFa."""
    return KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=purpose,
        context=context,
        fixed=None,
    ).derive(seed)
