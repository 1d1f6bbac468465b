"""Verbs that start a server: `serve` and `demo`. They need the extra `[server]`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from blindai.cli.screen import file_error, note
from blindai.errors import BlindAIError


def serve(
    simulation: Annotated[
        bool | None, typer.Option("--simulation", help="no TEE: runs anywhere and PROTECTS NOTHING")
    ] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="HTTPS port; 0 takes a free one [default: 50051]")] = None,
    service: Annotated[str | None, typer.Option(help="service name in the keyset [default: blindai-srv]")] = None,
    data_dir: Annotated[str | None, typer.Option(help="folder for encrypted models [default: a temporary one]")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [default: info]")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port; 0 takes a free one [default: 50052]")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus metrics' port [default: 50053]")] = None,
    model_repository: Annotated[
        str | None, typer.Option(metavar="DIR", help="Triton model repository, read once at start")
    ] = None,
    model_store: Annotated[
        str | None, typer.Option(metavar="DIR", help="keep uploaded models there, sealed [default: they end with it]")
    ] = None,
    tpm: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="TPM 2.0 that attests and seals, such as /dev/tpmrm0")
    ] = None,
    tpm_ek_issuers: Annotated[
        str | None, typer.Option(metavar="FILE", help="PEM file of the CAs above the TPM's EK certificate")
    ] = None,
    rotate_store_key: Annotated[
        bool | None, typer.Option("--rotate-store-key", help="give the model store a new key at this start")
    ] = None,
    access: Annotated[str | None, typer.Option(metavar="FILE", help="TOML file of tenants, keys and quotas")] = None,
    require_sealed: Annotated[
        bool | None, typer.Option("--require-sealed", help="close the pinned-TLS and gRPC doors")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; options go before it")] = None,
    check_config: Annotated[bool, typer.Option("--check-config", help="show what would be served, and stop")] = False,
) -> None:
    """Serve models, attested by a TPM or simulated."""
    try:
        from blindai.server.access_file import read_access_file
        from blindai.server.serve import serve as run
        from blindai.server.settings import in_effect, load_settings
        from blindai.server.start_table import start_table
    except ModuleNotFoundError as error:
        raise BlindAIError(
            f"the server needs {error.name}", hint="in a clone of the project: pip install '.[server]'"
        ) from None
    given = {
        "simulation": simulation,
        "host": host,
        "port": port,
        "service": service,
        "data_dir": data_dir,
        "log_level": log_level,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "model_repository": model_repository,
        "model_store": model_store,
        "tpm": tpm,
        "tpm_ek_issuers": tpm_ek_issuers,
        "rotate_store_key": rotate_store_key,
        "access": access,
        "authentication": None if access is None else "required",
        "require_sealed": require_sealed,
    }
    settings = load_settings(config, given)
    if settings.access is not None:
        read_access_file(Path(settings.access))
    if check_config:
        note("\n".join(start_table(in_effect(settings, os.environ))))
        typer.echo("the settings are in order")
        return
    try:
        run(settings)
    except OSError as error:  # the port is taken, the host is not ours, the folder is not there
        raise BlindAIError(f"cannot serve on {settings.host} port {settings.port}: {file_error(error)}") from None


def demo() -> None:
    """See the whole path on real data, in under a minute."""
    from blindai.cli.demo import run_demo

    try:
        run_demo()
    except ModuleNotFoundError as error:
        raise BlindAIError(f"the demo needs {error.name}", hint="run `make demo`, which installs it") from None
