"""Credentials over a real socket: each face of the client, and a server whose access file was made by `new-key`."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from e2e.running_server import RunningServer
from e2e.tiny_models import times

import blindai
from blindai import AsyncClient, Client
from blindai.client import BlindAiClient
from blindai.errors import ForbiddenError, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.network


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    server: RunningServer
    keys: dict[str, str]

    def connect(self, role: str) -> Client:
        return blindai.connect(self.server.url, insecure_simulation=True, api_key=self.keys[role])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, keys = tmp_path_factory.mktemp("guarded"), {}
    with (folder / "access.toml").open("w") as file:
        for role in ("infer", "upload", "admin"):
            command = ["access", "new-key", "--tenant", "clinic", "--role", role, "--json"]
            made = subprocess.run([sys.executable, "-m", "blindai.cli.main", *command], capture_output=True, check=True)
            members = json.loads(made.stdout)
            keys[role] = members["key"]
            file.write(members["entry"])
    server = RunningServer(folder / "server.log", options=("--access", str(folder / "access.toml")))
    try:
        yield Guarded(server=server, keys=keys)
    finally:
        server.stop()
    for key in keys.values():
        assert key not in server.log


ROW = np.array([[1, 2, 3]], np.float32)


def test_each_role_does_its_own(guarded: Guarded, tmp_path: Path) -> None:
    model = times(tmp_path / "m.onnx", 2.0)
    with guarded.connect("infer") as infers, guarded.connect("upload") as uploads:
        assert uploads.upload_model(model).name == "m"
        assert infers.infer("m", ROW)["y"].tolist() == [[2, 4, 6]]
        with pytest.raises(ForbiddenError):
            infers.upload_model(model)
        with pytest.raises(ForbiddenError):
            uploads.infer("m", ROW)
        assert "m" in [model.name for model in infers.models()]


@pytest.mark.parametrize("key", [None, "blindai_nobody_" + "A" * 43])
def test_nobody_else_does_anything(guarded: Guarded, key: str | None) -> None:
    with blindai.connect(guarded.server.url, insecure_simulation=True, api_key=key) as client:
        assert client.attestation.keyset.runtime.authentication == "required"
        with pytest.raises(UnauthenticatedError):
            client.models()


def test_over_pinned_tls_the_key_goes_with_each_request(guarded: Guarded, tmp_path: Path) -> None:
    connect = functools.partial(blindai.connect, guarded.server.url, insecure_simulation=True, transport="tls")
    with connect(api_key=guarded.keys["upload"]) as uploads:
        uploads.upload_model(times(tmp_path / "pinned.onnx", 2.0))
    with connect(api_key=guarded.keys["infer"]) as infers:
        assert infers.infer("pinned", ROW)["y"].tolist() == [[2, 4, 6]]
    with connect() as nobody, pytest.raises(UnauthenticatedError):
        nobody.models()


async def test_the_async_client_shows_tokens_and_manages_keys(guarded: Guarded) -> None:
    admin = AsyncClient(guarded.server.url, insecure_simulation=True, token=lambda: guarded.keys["admin"])
    async with admin:
        made = await admin.access.create_key(["infer"])
        assert made.id in [key.id for key in await admin.access.keys()]
        async with AsyncClient(guarded.server.url, insecure_simulation=True, api_key=made.key) as guest:
            await guest.models()
            await guest.models()
            await admin.access.revoke_key(made.id)
            with pytest.raises(UnauthenticatedError):
                await guest.models()
        revoked = await admin.access.revoke_tokens(sub="somebody")
        await admin.access.lift(revoked)


def test_the_classic_client_takes_a_key(guarded: Guarded, tmp_path: Path) -> None:
    host, port = "127.0.0.1", guarded.server.port
    client = BlindAiClient()
    client.connect_server(host, simulation=True, attested_port=port, api_key=guarded.keys["admin"])
    client.upload_model(str(times(tmp_path / "classic.onnx", 3.0)))
    assert client.run_model([1.0, 2.0, 3.0], model_id="classic").output == [3.0, 6.0, 9.0]
    client.close_connection()
    client.connect_server(host, simulation=True, attested_port=port, api_key="")
    with pytest.raises(UnauthenticatedError):
        client.run_model([1.0, 2.0, 3.0])
    client.close_connection()
