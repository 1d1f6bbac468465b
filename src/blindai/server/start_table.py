"""What a server is about to do, in words for its operator: shown at start, and by `serve --check-config`.

Nothing here is secret, since nothing in the settings may be. Leaves out: the addresses once it listens (serve.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blindai.server.settings import Settings

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_ISOLATION = {
    "tenant": "a closed process for each model and tenant",
    "model": "a closed process for each model, which tenants share: trust its author with their data",
    "thread": "NONE: models run in the server itself; trust their authors with everything",
}


def start_table(settings: Settings) -> list[str]:
    """Lines of two columns."""
    rows = {
        "service": settings.service,
        "protection": "NONE: this is a simulation"
        if settings.simulation
        else f"a TPM ({settings.tpm}) says what booted; NOTHING hides memory from whoever runs the machine",
        **_doors(settings),
        **({"TPM's EK": f"shown, with {settings.tpm_ek_issuers}"} if settings.tpm_ek_issuers else {}),
        "authentication": _authentication(settings),
        "isolation": _ISOLATION[settings.isolation],
        "batching": "requests of one tenant may run together" if settings.batching else "off",
        "computes on": ", the rest on ".join(settings.execution_providers),
        **_limits(settings),
        "telemetry": f"sent to {settings.telemetry_endpoint}" if settings.telemetry_endpoint else "off",
    }
    width = max(map(len, rows))
    return [f"{name:{width}}  {words}" for name, words in rows.items()]


def _doors(settings: Settings) -> dict[str, str]:
    clear = "closed, only sealed messages may come in"
    return {
        "sealed door": f"open, {_at(settings, settings.port)}",
        "pinned-TLS door": clear if settings.require_sealed else "open, same port",
        "gRPC door": clear if settings.require_sealed else f"open, {_at(settings, settings.grpc_listen_port)}",
        "metrics": f"{_at(settings, settings.metrics_listen_port)}, in clear: counts only",
    }


def _kept(settings: Settings) -> str:
    if settings.model_store is None:
        return "end with the server"
    by = f"sealed by the TPM {settings.tpm}" if settings.tpm else "under a key IN THE SAME FOLDER"
    renewed = ", NEW AT EACH START" if settings.rotate_store_key else ""
    moved = f", HANDED OVER by {settings.hand_over_to!r}" if settings.hand_over_to else ""
    return f"kept in {settings.model_store!r}, {by}{renewed}{moved}"


def _at(settings: Settings, port: int) -> str:
    return f"{settings.host} port {port}" if port else f"{settings.host}, a free port"


def _authentication(settings: Settings) -> str:
    if settings.authentication == "open":
        return "NONE: whoever reaches a door may upload, run and delete models"
    return f"keys and tokens of {settings.access!r}"


def _limits(settings: Settings) -> dict[str, str]:
    kept = (
        f"{settings.max_models} of {_size(settings.max_model_bytes)} each, {_size(settings.max_store_bytes)} together"
    )
    return {
        "models": f"at most {kept}; {'uploads allowed' if settings.upload_allowed else 'no uploads'}",
        "uploaded models": _kept(settings),
        "model repository": repr(settings.model_repository) if settings.model_repository else "none",
        "processes": f"at most {settings.max_workers} of {_size(settings.max_worker_bytes)} each",
        "runs": f"at most {settings.run_timeout_s} s, after at most {settings.load_timeout_s} s of loading",
        "requests": f"at most {_size(settings.max_body_bytes)} each, {_size(settings.max_buffered_bytes)} together",
        "connections": f"at most {settings.max_connections}, silent for at most {settings.idle_timeout_s} s",
        "keys": f"new ones every {settings.epoch_s} s",
        "end": f"running requests have {settings.drain_timeout_s} s after SIGTERM",
    }


def _size(size_bytes: int) -> str:
    for unit_bytes, unit in _UNITS:
        if size_bytes >= unit_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes:,} {unit}"
    return f"{size_bytes:,} bytes"
