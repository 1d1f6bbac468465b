"""Key usage of a certificate by the names of its bits, which the library wants all said."""

from __future__ import annotations

from cryptography import x509

USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def key_usage(*uses: str) -> x509.KeyUsage:
    """Exactly these."""
    return x509.KeyUsage(**{use: use in uses for use in USES})
