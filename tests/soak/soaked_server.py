"""The server under load: its access file, short epochs, and what can be seen of it from outside.

Leaves out: the load (`actors`).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from e2e.running_server import RunningServer

import blindai
from blindai import AsyncClient
from blindai.server.credentials import draw_key

if TYPE_CHECKING:
    from blindai import Client

TENANTS = ("alpha", "beta")
EPOCH_S = 60  # a new key is published at half life, every 30 s
_QUOTA = 5  # of runs at a time for `beta`, so that some are refused
_SOON_S = 60
# One for all: making a context costs more than a connection.
ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY_CERTIFICATE.check_hostname, ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE


class SoakedServer:
    """One `blindai serve --simulation` with two tenants.

    Args:
        folder: for its files; `store` in it is its data folder.
        settings: more lines for its configuration.
    """

    def __init__(self, folder: Path, settings: str = f"epoch_s = {EPOCH_S}") -> None:
        self.keys = {tenant: draw_key(os.urandom, tenant)[1] for tenant in TENANTS}
        (folder / "access.toml").write_text(self._access())
        (folder / "store").mkdir()
        (folder / "config.toml").write_text(
            f'{settings}\nauthentication = "required"\naccess = "{folder / "access.toml"}"\n'
            f'data_dir = "{folder / "store"}"\n'
        )
        self._store = folder / "store"
        self.running = RunningServer(folder / "log", options=("--config", str(folder / "config.toml")))

    def _access(self) -> str:
        lines = []
        for tenant, key in self.keys.items():
            digest = hashlib.sha256(key.encode()).hexdigest()
            lines.append(f'[[tenants.{tenant}.keys]]\nid = "{tenant}"\nsha256 = "{digest}"')
            lines.append('roles = ["infer", "upload", "admin"]')
        return "\n".join((*lines, f"[tenants.beta.quotas]\nmax_concurrent_runs = {_QUOTA}\n"))

    def client(self, tenant: str, **options: Any) -> Client:
        """A connected client of a tenant."""
        return blindai.connect(self.running.url, insecure_simulation=True, api_key=self.keys[tenant], **options)

    def async_client(self, tenant: str, **options: Any) -> AsyncClient:
        """A client of a tenant, to be entered."""
        return AsyncClient(self.running.url, insecure_simulation=True, api_key=self.keys[tenant], **options)

    def https(self) -> http.client.HTTPSConnection:
        """A connection of a client that knows nothing of BlindAI."""
        return http.client.HTTPSConnection("127.0.0.1", self.running.port, timeout=60, context=ANY_CERTIFICATE)

    # ---- What an operator sees

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels."""
        address = urlsplit(self.running.address("metrics"))
        connection = http.client.HTTPConnection(address.netloc, timeout=30)
        connection.request("GET", address.path)
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def resident_bytes(self) -> int:
        """Of its main process."""
        pages = int(Path(f"/proc/{self.running.process_id}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open files of its main process; 0 where only root may see them, since it forbids dumps of itself."""
        try:
            return len(list(Path(f"/proc/{self.running.process_id}/fd").iterdir()))
        except PermissionError:
            return 0

    def stored_files(self) -> int:
        """Files that it keeps on disk."""
        return sum(path.is_file() for path in self._store.rglob("*"))

    def wait_until_quiet(self) -> None:
        """Until no model's process and no connection is left, if that comes soon."""
        deadline_s = time.monotonic() + _SOON_S
        while time.monotonic() < deadline_s:
            if not self.running.model_processes() and not self.metrics()["blindai_connections"]:
                return
            time.sleep(0.2)
