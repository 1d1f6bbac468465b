"""A manufacturer of software TPMs: swtpm_setup and swtpm_localca with a CA of their own in a test's folder."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from pathlib import Path

_FILES = {
    "localca.conf": "statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\n"
    "certserial = {ca}/certserial\n",
    "localca.options": "--platform-manufacturer BlindAI-Tests\n--platform-version 1\n--platform-model swtpm\n",
    "setup.conf": "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {folder}/localca.conf\n"
    "create_certs_tool_options = {folder}/localca.options\n",
}


class Manufacturer:
    """Makes TPMs whose EK certificates lead to its own root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = folder / "ca"
        self._ca.mkdir(parents=True)
        for name, text in _FILES.items():
            (folder / name).write_text(text.format(folder=folder, ca=self._ca))

    def make(self, state: Path) -> None:
        """Everything that a new TPM has when it is delivered, in this folder."""
        state.mkdir()
        command = ["swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert"]
        options = ["--config", str(self._folder / "setup.conf"), "--logfile", str(self._folder / "setup.log")]
        subprocess.run([*command, *options], check=True, timeout=60)

    @property
    def issuers(self) -> Path:
        """Its CAs in PEM, as it would publish them."""
        path = self._folder / "issuers.pem"
        path.write_bytes(b"".join(one.read_bytes() for one in (self._ca / "issuercert.pem", self._root)))
        return path

    @property
    def root_sha256(self) -> bytes:
        """What a policy names."""
        root = x509.load_pem_x509_certificate(self._root.read_bytes())
        return hashlib.sha256(root.public_bytes(Encoding.DER)).digest()

    @property
    def _root(self) -> Path:
        return self._ca / "swtpm-localca-rootca-cert.pem"
