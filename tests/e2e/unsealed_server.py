"""`blindai serve` as it must not be: a store whose cipher does nothing, and what clients send goes to the log.

The control of test_kept_canary.py: where a search finds nothing, it must find all of this.
"""

from __future__ import annotations

import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from blindai.channel import frames
from blindai.cli.main import main
from blindai.server import sealed_file, store_index

TAG = bytes(16)


class ClearCipher:
    """In the place of AES-GCM on the disk."""

    def __init__(self, _key: bytes) -> None:
        pass

    def encrypt(self, _nonce: bytes, data: bytes, _associated: bytes) -> bytes:
        """As it is."""
        return bytes(data) + TAG

    def decrypt(self, _nonce: bytes, data: bytes, _associated: bytes) -> bytes:
        """As it is."""
        return bytes(data[: -len(TAG)])


class TalkativeCipher:
    """In the place of AES-GCM on the wire."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.encrypt = self._cipher.encrypt

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes | None) -> bytes:
        """What was sent, and in the log."""
        opened = self._cipher.decrypt(nonce, data, associated)
        sys.stderr.buffer.write(opened + b"\n")
        sys.stderr.buffer.flush()
        return opened


if __name__ == "__main__":
    for module, cipher in ((sealed_file, ClearCipher), (store_index, ClearCipher), (frames, TalkativeCipher)):
        vars(module)["AESGCM"] = cipher
    main()
