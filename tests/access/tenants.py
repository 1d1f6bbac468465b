"""Two tenants with keys, and one with a token issuer; and a server that knows them, without sockets."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from attacks.world import Time
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.network import Network

from blindai.attestation.policy import insecure_simulation_policy
from blindai.attester.simulation import SimulationAttester
from blindai.client import access_control, flows
from blindai.client.connection import ClientSettings, Connection
from blindai.client.credential import credential_source
from blindai.server.credentials import draw_key
from blindai.server.serve import create_app
from blindai.server.settings import Settings
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from blindai.client.attest_flow import Flow
    from blindai.client.results import ModelInfo, UploadedModel
    from blindai.server.app import App

T = TypeVar("T")
ISSUER = "https://issuer.example"
ROLES = ("infer", "upload", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A key of each role for tenants `alpha` and `beta`, a key that has ended, and the issuer's private key."""

    text: dict[str, str]
    issuer: Ed25519PrivateKey = field(repr=False)


def draw_keys() -> Keys:
    names = [f"{tenant}-{role}" for tenant in ("alpha", "beta") for role in ROLES]
    return Keys(
        text={name: draw_key(os.urandom, name)[1] for name in (*names, "alpha-ended")},
        issuer=Ed25519PrivateKey.generate(),
    )


def access_toml(keys: Keys, *, alg: str = "EdDSA", quotas: str = "") -> str:
    """The file as an operator writes it."""
    lines = []
    for name, text in keys.text.items():
        tenant, role = name.split("-")
        lines += [
            f"[[tenants.{tenant}.keys]]",
            f'id = "{name}"',
            f'sha256 = "{hashlib.sha256(text.encode()).hexdigest()}"',
        ]
        lines.append(f'roles = ["{"infer" if role == "ended" else role}"]')
        lines += ["not_after = 2027-01-15T07:59:59Z"] if role == "ended" else []  # a second before the tests' time
    public_key = base64url_encode(keys.issuer.public_key().public_bytes_raw())
    lines += [
        "[[tenants.alpha.issuers]]", f'name = "{ISSUER}"', f'alg = "{alg}"',
        f'public_key = "{public_key}"', 'roles_max = ["infer", "upload"]',
    ]  # fmt: skip
    return "\n".join(lines) + f"\n[tenants.beta.quotas]\n{quotas}\n"


def signed(keys: Keys, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    """A compact JWS, made by RFC 7515 alone."""
    head = {"alg": "EdDSA", "typ": "JWT"} if header is None else header
    signing = ".".join(base64url_encode(json.dumps(part).encode()) for part in (head, claims))
    return f"{signing}.{base64url_encode(keys.issuer.sign(signing.encode()))}"


def claims_at(now_s: float, **changed: Any) -> dict[str, Any]:
    """Good claims, some of them changed; None leaves one out."""
    claims = {
        "iss": ISSUER, "aud": "blindai-srv", "sub": "dr-who", "roles": ["infer"],
        "iat": int(now_s), "exp": int(now_s) + 3600, "jti": "t1", **changed,
    }  # fmt: skip
    return {name: value for name, value in claims.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A server with two tenants."""

    app: App
    loop: asyncio.AbstractEventLoop
    time: Time
    keys: Keys

    def network(self, **hooks: Any) -> Network:
        return Network(app=self.app, loop=self.loop, **hooks)

    def person(
        self, key: str | None = None, *, token: str | Callable[[], str] | None = None, network: Network | None = None
    ) -> Person:
        """A client with the key of that name, another text as key, or a token."""
        source = credential_source(None if key is None else self.keys.text.get(key, key), token)
        settings = ClientSettings(policy=insecure_simulation_policy(), credential=source)
        connection = Connection(settings, clock=self.time.client(), random=os.urandom)
        return Person(connection=connection, network=network or self.network())

    def token(self, **changed: Any) -> str:
        return signed(self.keys, claims_at(self.time.wall_s, **changed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whoever holds a credential."""

    connection: Connection
    network: Network

    def run(self, flow: Flow[T]) -> T:
        return self.network.drive(flow)

    @property
    def access(self) -> access_control.AccessControl:
        return access_control.AccessControl(self.connection, self.network.drive)

    def upload(self, name: str, path: Path, *, load: bool = False) -> UploadedModel:
        files = flows.ModelFiles(name=name, version=None, paths=(path,), default_shape=None, load=load)
        return self.run(flows.upload_model(self.connection, files, None))

    def models(self) -> tuple[ModelInfo, ...]:
        return self.run(flows.list_models(self.connection))

    def names(self) -> list[str]:
        return [model.name for model in self.models()]

    def infer(self, model: str | None, values: Sequence[float] = (2.0, 40.0)) -> list[float]:
        inputs = np.array(values, dtype=np.float32)
        result = self.run(flows.infer(self.connection, model, inputs, version=None, outputs=()))
        return [float(value) for value in result["y"]]

    def delete(self, model: str) -> int:
        return self.run(flows.delete_model(self.connection, model, None))


def build_house(folder: Path, loop: asyncio.AbstractEventLoop, keys: Keys, text: str, **settings: Any) -> House:
    """A server with this access file."""
    path = folder / "access.toml"
    path.write_text(text)
    time = Time()
    app = create_app(
        Settings(simulation=True, authentication="required", access=str(path), **settings),
        attester=SimulationAttester(random=os.urandom, measurement=bytes(32)),
        directory=folder / "store",
        clock=time.server(),
    )
    return House(app=app, loop=loop, time=time, keys=keys)
