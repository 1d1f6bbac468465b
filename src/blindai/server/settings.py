"""What the operator can set: one TOML file and the command line, whose digest stands in every keyset.

Unknown keys are refused. Leaves out: anything secret; nothing here may be one, since the digest is published.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blindai.attester.sealing import InsecureKeyFile
from blindai.attester.tpm2.sealer import TpmSealer
from blindai.channel.keyset import DEFAULT_SERVICE, MAX_EPOCH_S
from blindai.channel.runtime_policy import RuntimeLimits, RuntimePolicy
from blindai.errors import InvalidSettingsError
from blindai.server.execution_providers import CPU, check_choice
from blindai.wire import JSON_INTEGER_LIMIT, compact_json, exact_bytes, label, length_prefixed, printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEFAULT_PORT = 50051
DEFAULT_GRPC_PORT = 50052
DEFAULT_METRICS_PORT = 50053
ISOLATIONS = ("tenant", "model", "thread")
AUTHENTICATIONS = ("open", "required")
MAX_PORT = 65535
EPHEMERAL = "ephemeral"
DISABLE_TELEMETRY = "BLINDAI_DISABLE_TELEMETRY"
_POSITIVE = (
    "epoch_s",
    "max_body_bytes",
    "max_model_bytes",
    "max_models",
    "run_timeout_s",
    "max_store_bytes",
    "max_uploads",
    "max_connections",
    "max_buffered_bytes",
    "idle_timeout_s",
    "load_timeout_s",
    "drain_timeout_s",
    "idle_worker_s",
    "max_workers",
    "max_worker_bytes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration.

    Attributes:
        simulation: serve without a TEE, insecurely.
        port: HTTPS port; 0 takes a free one.
        service: the name that clients expect in the keyset.
        data_dir: where encrypted models are kept while the server runs; a private temporary folder if None.
        epoch_s: how long an epoch keyset lives, in seconds.
        max_body_bytes: largest inference request or answer.
        max_model_bytes: largest model bundle.
        max_models: most models kept at a time.
        run_timeout_s: longest run of a model.
        max_store_bytes: of all model bundles together, those that are being uploaded included.
        max_uploads: at a time.
        max_connections: at a time; those above it are answered 503.
        max_buffered_bytes: of all requests that are read or run at a time; never above a quarter of the memory.
        idle_timeout_s: in which a request's body or the reading of its answer must go on.
        grpc_port: of the gRPC door; 0 takes a free one, and so does the default when `port` is 0.
        metrics_port: of the content-free metrics listener, likewise.
        model_repository: a Triton model repository, read once at start.
        model_store: folder in which uploaded models outlive the server, sealed (kept_store.py); else they end with it.
        tpm: the TPM 2.0 that attests what booted, unless in simulation, and seals the model store's key:
            `/dev/tpmrm0`, or `unix:PATH` for one behind a socket.
        tpm_ek_issuers: PEM file of the CAs, and revocation lists, above that TPM's EK certificate: clients may then ask
            the TPM itself whether the attestation key is its own.
        rotate_store_key: gives the model store a new key at each start; the old one then opens nothing that is kept.
        upgrade_signers: the operator's Ed25519 keys, in unpadded base64url: releases between which a kept store moves
            have a manifest that one of them has signed, and models move only if their owner's key has signed it too.
        take_over_from: manifest of the release whose store this one makes its own, once, if that was handed over.
        hand_over_to: manifest of the release that is given the store, at this server's start and its end.
        require_sealed: closes the pinned-TLS and gRPC doors.
        isolation: what shares a process: `tenant` (requests of one tenant to one model), `model` or `thread`.
        batching: whether waiting requests of one tenant may run as one batch.
        authentication: `open` (anybody may do anything; simulation only) or `required`.
        access: TOML file of tenants, keys and quotas; needed when authentication is required. Where the digest is
            published, `sha256:` and the hash of the file stand here instead of its path (serve.py).
        load_timeout_s: longest start of a model's process.
        drain_timeout_s: how long requests may take to end after SIGTERM.
        idle_worker_s: after which a process that nobody uses ends.
        max_workers: processes of models at a time.
        max_worker_bytes: address space of one process; a model that needs more fails.
        execution_providers: of `execution_providers.PROVIDERS`; each computes what it can, the next the rest.
        telemetry_endpoint: URL of the operator's collector, to which the metrics are sent (telemetry.py); else nowhere.
    """

    simulation: bool = False
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    service: str = DEFAULT_SERVICE
    data_dir: str | None = None
    log_level: str = "info"
    upload_allowed: bool = True
    epoch_s: int = 6 * 3600
    max_body_bytes: int = 256 * 1024 * 1024
    max_model_bytes: int = 16 * 1024 * 1024 * 1024
    max_models: int = 256
    run_timeout_s: int = 60
    max_store_bytes: int = 64 * 1024 * 1024 * 1024
    max_uploads: int = 8
    max_connections: int = 1024
    max_buffered_bytes: int = 2 * 1024 * 1024 * 1024
    idle_timeout_s: int = 60
    grpc_port: int = DEFAULT_GRPC_PORT
    metrics_port: int = DEFAULT_METRICS_PORT
    model_repository: str | None = None
    model_store: str | None = None
    tpm: str | None = None
    tpm_ek_issuers: str | None = None
    rotate_store_key: bool = False
    upgrade_signers: tuple[str, ...] = ()
    take_over_from: str | None = None
    hand_over_to: str | None = None
    require_sealed: bool = False
    isolation: str = "tenant"
    batching: bool = True
    authentication: str = "open"
    access: str | None = None
    load_timeout_s: int = 300
    drain_timeout_s: int = 30
    idle_worker_s: int = 60
    max_workers: int = 64
    max_worker_bytes: int = 16 * 1024 * 1024 * 1024
    execution_providers: tuple[str, ...] = (CPU,)
    telemetry_endpoint: str | None = None

    @property
    def grpc_listen_port(self) -> int:
        """The port of the gRPC door; a free one where the HTTPS port is a free one and nothing else was said."""
        return 0 if self.port == 0 and self.grpc_port == DEFAULT_GRPC_PORT else self.grpc_port

    @property
    def metrics_listen_port(self) -> int:
        """The port of the metrics listener, likewise."""
        return 0 if self.port == 0 and self.metrics_port == DEFAULT_METRICS_PORT else self.metrics_port

    def check(self) -> None:
        """Refuse what cannot be served.

        Raises:
            InvalidSettingsError: with what to change.
        """
        self._check_words()
        _check_address(self.host, (self.port, self.grpc_port, self.metrics_port))
        if self.telemetry_endpoint is not None:
            _check_endpoint(self.telemetry_endpoint)
        for name in _POSITIVE:
            if not 0 < getattr(self, name) <= JSON_INTEGER_LIMIT:
                raise InvalidSettingsError(f"{name} is a whole number from 1 to 2^53-1, not {getattr(self, name)}")
        if self.epoch_s > MAX_EPOCH_S:
            raise InvalidSettingsError(f"epoch_s is at most {MAX_EPOCH_S}, since clients accept no longer epochs")
        for larger, smaller in (("max_store_bytes", "max_model_bytes"), ("max_buffered_bytes", "max_body_bytes")):
            if getattr(self, larger) < getattr(self, smaller):
                raise InvalidSettingsError(f"{larger} is at least {smaller}, or that could never be reached")

    def _check_words(self) -> None:
        if not self.simulation and self.tpm is None:
            raise InvalidSettingsError(
                "nothing here attests: this version serves what a TPM 2.0 vouches for, or simulation",
                hint='`tpm = "/dev/tpmrm0"`; `blindai serve --simulation` runs anywhere, and protects nothing',
            )
        if self.tpm_ek_issuers is not None and (self.simulation or self.tpm is None):
            raise InvalidSettingsError("issuers of a TPM's EK are named, and no TPM attests", hint="set `tpm`")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise InvalidSettingsError(f"log_level is debug, info, warning or error, not {self.log_level!r}")
        if self.isolation not in ISOLATIONS:
            raise InvalidSettingsError(f"isolation is one of {', '.join(ISOLATIONS)}, not {self.isolation!r}")
        check_choice(self.execution_providers, isolation=self.isolation)
        self._check_access()
        if self.simulation and self.tpm is not None and self.model_store is None:
            raise InvalidSettingsError(
                "a TPM is named, and in simulation it only seals a model store's key", hint="set `model_store`"
            )
        if self.rotate_store_key and self.model_store is None:
            raise InvalidSettingsError("there is no model store, so nothing to rotate", hint="set `model_store`")
        self._check_upgrade()
        try:
            printable(self.service)
        except ValueError as error:
            raise InvalidSettingsError(f"service: {error}") from None

    def _check_upgrade(self) -> None:
        """Between releases a store moves only where a TEE tells them apart, and an operator's key is known."""
        moves = self.take_over_from is not None or self.hand_over_to is not None
        if moves and (self.model_store is None or self.tpm is None):
            raise InvalidSettingsError(
                "a store is to be handed over, and none is sealed by a TPM", hint="set `model_store` and `tpm`"
            )
        if moves and not self.upgrade_signers:
            raise InvalidSettingsError(
                "a store is to be handed over, and nobody may sign for it", hint="set `upgrade_signers`"
            )
        try:
            _ = self.upgrade_keys
        except ValueError:
            raise InvalidSettingsError(
                "upgrade_signers holds Ed25519 public keys in unpadded base64url",
                hint="`blindai manifest sign` shows them",
            ) from None

    @property
    def upgrade_keys(self) -> frozenset[bytes]:
        """The keys of `upgrade_signers`, 32 bytes each."""
        return frozenset(exact_bytes(key, 32) for key in self.upgrade_signers)

    def _check_access(self) -> None:
        """A file that nobody looks at would be worse than none."""
        if self.authentication not in AUTHENTICATIONS:
            raise InvalidSettingsError(f"authentication is open or required, not {self.authentication!r}")
        if self.authentication == "required" and self.access is None:
            raise InvalidSettingsError("authentication is required, and there is no access file", hint="set `access`")
        if self.authentication == "open" and self.access is not None:
            raise InvalidSettingsError(
                "there is an access file, and authentication is open", hint='set `authentication = "required"`'
            )

    def _sealing(self) -> str:
        """What keeps uploaded models."""
        if self.model_store is None:
            return EPHEMERAL
        return InsecureKeyFile.kind if self.tpm is None else TpmSealer.kind

    def digest(self, repository: bytes = b"") -> bytes:
        """SHA-256 of every setting, the defaults included, and of what the model repository holds, if there is one."""
        parts = (compact_json(dataclasses.asdict(self)), *((repository,) if repository else ()))
        return hashlib.sha256(label("configuration") + b"".join(map(length_prefixed, parts))).digest()

    def runtime_policy(self, models: tuple[str, ...] = (), repository: bytes = b"") -> RuntimePolicy:
        """What of this a data owner cares about, as the keyset states it.

        Args:
            models: digests of the models in the repository.
            repository: what else the repository holds (`StartModels.description`).
        """
        return RuntimePolicy(
            log_level=self.log_level,
            telemetry=self.telemetry_endpoint is not None,
            isolation=self.isolation,
            batching=self.batching,
            execution_providers=self.execution_providers,
            authentication=self.authentication,
            sealing=self._sealing(),
            upload_allowed=self.upload_allowed,
            require_sealed=self.require_sealed,
            models=models,
            limits=RuntimeLimits(
                max_body_bytes=self.max_body_bytes,
                max_model_bytes=self.max_model_bytes,
                max_models=self.max_models,
                run_timeout_s=self.run_timeout_s,
            ),
            configuration=self.digest(repository),
        )


def _check_address(host: str, ports: tuple[int, ...]) -> None:
    if not host or not host.isprintable() or " " in host:
        raise InvalidSettingsError("host is a name or an address", hint="127.0.0.1 listens on this machine only")
    for port in ports:
        if not 0 <= port <= MAX_PORT:
            raise InvalidSettingsError(
                f"a port is a number from 0 to {MAX_PORT}, not {port}", hint="0 takes a free one"
            )


def _check_endpoint(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.scheme not in {"http", "https"} or not url.isascii() or not url.isprintable():
        raise InvalidSettingsError(
            "telemetry_endpoint is an http or https URL", hint="http://127.0.0.1:4318/v1/metrics"
        )
    if "@" in parts.netloc or parts.query or parts.fragment or " " in url:
        raise InvalidSettingsError("telemetry_endpoint holds nothing but scheme, host, port and path: it is not secret")


def in_effect(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """The settings as they are served: a variable that is set to anything switches telemetry off, whatever they say."""
    return dataclasses.replace(settings, telemetry_endpoint=None) if environment.get(DISABLE_TELEMETRY) else settings


def load_settings(path: Path | None, overrides: dict[str, Any]) -> Settings:
    """The file's settings, then those of the command line that are not None.

    Raises:
        InvalidSettingsError: the file cannot be read, or names a key or a type that is not known.
    """
    values = _read(path) if path else {}
    values.update({name: value for name, value in overrides.items() if value is not None})
    defaults = Settings()
    for name, value in values.items():
        if name not in Settings.__dataclass_fields__:
            raise InvalidSettingsError(
                f"unknown setting {name!r}", hint=f"known are {', '.join(sorted(Settings.__dataclass_fields__))}"
            )
        values[name] = _typed(name, value, getattr(defaults, name))
    settings = Settings(**values)
    settings.check()
    return settings


def _typed(name: str, value: Any, default: object) -> Any:
    """The value, a list as a tuple; its type is that of the default, and text where there is none."""
    if isinstance(default, tuple):
        if not isinstance(value, list) or any(type(item) is not str for item in value):
            raise InvalidSettingsError(f"{name} is a list of texts")
        return tuple(value)
    expected = str if default is None else type(default)
    if type(value) is not expected:
        raise InvalidSettingsError(f"{name} is of type {expected.__name__}, not {type(value).__name__}")
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidSettingsError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettingsError(f"{path}: {error}") from None
