"""The verb `proxy`: plain Open Inference Protocol on this machine, for clients that know nothing of attestation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindai.cli.options import Server, chosen_policy, client_verb
from blindai.cli.screen import file_error, note, say, warn_of_simulation
from blindai.errors import BlindAIError, InvalidInputError, UnauthenticatedError

if TYPE_CHECKING:
    from blindai.client.attestation_view import Attestation
    from blindai.proxy.run import Address


@client_verb
def proxy(
    server: Server,
    http: Annotated[str, typer.Option("--http", metavar="HOST:PORT", help="where to offer plain HTTP")] = (
        "127.0.0.1:8000"
    ),
    grpc: Annotated[
        str, typer.Option("--grpc", metavar="HOST:PORT", help="where to offer plain gRPC; empty offers none")
    ] = "127.0.0.1:8001",
) -> None:
    """Verify a server, then forward plain requests to it, sealed."""
    from blindai.proxy.forward import ProxyOptions
    from blindai.proxy.run import run_proxy

    options = ProxyOptions(
        url=server.url,
        policy=chosen_policy(server.policy, insecure_simulation=server.insecure_simulation),
        service=server.service,
        level=server.require_level.value,
        credential=_credential(server),
        endorsements=server.own_endorsements(),
    )
    http_address, grpc_address = _address(http), _address(grpc) if grpc else None
    try:
        asyncio.run(run_proxy(options, http=http_address, grpc=grpc_address, announce=_announce))
    except ModuleNotFoundError as error:
        raise BlindAIError(f"gRPC needs {error.name}", hint="pip install '.[grpc]', or --grpc ''") from None
    except BlindAIError:  # some are OSErrors too
        raise
    except OSError as error:
        raise BlindAIError(f"cannot listen: {file_error(error)}", hint="another --http or --grpc, or port 0") from None


def _address(text: str) -> Address:
    from blindai.proxy.run import parse_address

    try:
        return parse_address(text)
    except InvalidInputError as error:
        raise typer.BadParameter(f"{error}; {error.hint}") from None


def _credential(server: Server) -> Callable[[], str] | None:
    """The proxy's own; a file is read anew at each use, since a token in it may be renewed while the proxy runs."""
    if (found := server.credential()) is None:
        return None
    return partial(_read, server.api_key_file) if server.api_key_file else lambda: found


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise UnauthenticatedError("the proxy cannot read its key file any more") from None


def _announce(attestation: Attestation, http: str, grpc: str) -> None:
    warn_of_simulation(attestation.simulated)
    note(
        f"verified: level {attestation.level}, service {attestation.keyset.service!r}; http://{http}/ shows the checks"
    )
    say(f"ready http://{http}")
    if grpc:
        say(f"grpc {grpc}")
