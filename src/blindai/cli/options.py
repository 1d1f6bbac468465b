"""The options that every verb of the client shares, and how a verb opens its client."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.cli.screen import note, warn_of_simulation
from blindai.errors import ChannelError

if TYPE_CHECKING:
    from blindai.attestation.policy import Policy
    from blindai.client.async_client import AsyncClient
    from blindai.client.own_endorsements import Endorsements
    from blindai.client.sync_client import Client


KEY_VARIABLE = "BLINDAI_API_KEY"


class Level(enum.StrEnum):
    """The evidence to ask for."""

    FRESH = "fresh"
    CACHED = "cached"


def _usable_url(url: str | None) -> str | None:
    if url is None:
        return None
    from blindai.client.transport import parse_server_url

    try:
        parse_server_url(url)
    except ChannelError as error:
        raise typer.BadParameter("; ".join(filter(None, (str(error), error.hint)))) from None
    return url


Url = Annotated[
    str, typer.Argument(metavar="URL", help="https://host:port, host:port or host (port 50051)", callback=_usable_url)
]
UrlOption = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="a running server to measure instead", callback=_usable_url),
]
PolicyOption = Annotated[
    str | None, typer.Option("--policy", metavar="FILE|PRESET", help="what to accept as proof [default: strict]")
]
SimulationOption = Annotated[
    bool, typer.Option("--insecure-simulation", help="accept a simulated server, which protects nothing")
]
ServiceOption = Annotated[str, typer.Option("--service", metavar="NAME", help="the service that the keyset must name")]
LevelOption = Annotated[Level, typer.Option("--require-level", help="the evidence to ask for")]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", help="an API key or token; who lists processes reads it, so prefer the next option"),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option("--api-key-file", metavar="FILE", help=f"a file that holds it [default: ${KEY_VARIABLE}]"),
]
EndorsementsOption = Annotated[
    Path | None,
    typer.Option("--endorsements", metavar="FILE|DIR", help="insist on this bundle, or folder of bundles", exists=True),
]
FetchOption = Annotated[
    bool, typer.Option("--fetch", help="insist on what the vendors' services say now, whatever the server staples")
]
PccsOption = Annotated[str | None, typer.Option("--pccs", metavar="URL", help="with --fetch: a PCCS instead of Intel")]
KdsOption = Annotated[str | None, typer.Option("--kds", metavar="URL", help="with --fetch: a mirror of AMD's KDS")]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="with --fetch: keep documents here until they end")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts")]


def moment(text: str) -> float:
    """An ISO time, as `--at` takes it, in Unix seconds; UTC unless it says otherwise.

    Raises:
        BadParameter: anything else.
    """
    try:
        read = dt.datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"an ISO time such as 2026-11-24T12:00:00Z, not {text!r}", param_hint="--at") from None


def chosen_policy(policy: str | None, *, insecure_simulation: bool) -> Policy:
    """What these two options say is accepted as proof.

    Raises:
        BadParameter: both were given.
        InvalidPolicyError: the policy file cannot be read.
    """
    from blindai.client.options import make_policy

    if policy and insecure_simulation:
        raise typer.BadParameter("choose one of --policy and --insecure-simulation; a policy may accept simulation too")
    return make_policy(policy, insecure_simulation=insecure_simulation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Which server a verb talks to, and what it accepts as proof; each field is an option on the command line."""

    url: Url
    policy: PolicyOption = None
    insecure_simulation: SimulationOption = False
    service: ServiceOption = DEFAULT_SERVICE
    require_level: LevelOption = Level.FRESH
    api_key: KeyOption = dataclasses.field(default=None, repr=False)
    api_key_file: KeyFileOption = None
    endorsements: EndorsementsOption = None
    fetch: FetchOption = False
    pccs: PccsOption = None
    kds: KdsOption = None
    cache: CacheOption = None

    @contextlib.contextmanager
    def connect(self) -> Iterator[Client]:
        """Verify the server and open a client to it; says on stderr if nothing protects it."""
        from blindai.client.sync_client import Client

        with Client(self.url, **self._choices()) as client:
            warn_of_simulation(client.attestation.simulated)
            yield client

    @contextlib.asynccontextmanager
    async def connect_async(self) -> AsyncIterator[AsyncClient]:
        """The same for asyncio."""
        from blindai.client.async_client import AsyncClient

        async with AsyncClient(self.url, **self._choices()) as client:
            warn_of_simulation(client.attestation.simulated)
            yield client

    def _choices(self) -> dict[str, Any]:
        policy = chosen_policy(self.policy, insecure_simulation=self.insecure_simulation)
        return {
            "policy": policy,
            "service": self.service,
            "level": self.require_level.value,
            "token": self.credential(),
            "endorsements": self.own_endorsements(),
        }

    def own_endorsements(self) -> Endorsements | None:
        """Where endorsements shall come from; None judges by what the server staples."""
        from blindai.cli.endorsement_options import own_endorsements

        return own_endorsements(
            bundles=self.endorsements, fetch=self.fetch, pccs=self.pccs, kds=self.kds, cache=self.cache
        )

    def credential(self) -> str | None:
        """The key from where it was put; one on the command line works, and is warned of."""
        if self.api_key and self.api_key_file:
            raise typer.BadParameter("choose one of --api-key and --api-key-file")
        if self.api_key:
            note(f"a key on the command line is seen by whoever lists processes: use --api-key-file or {KEY_VARIABLE}")
            return self.api_key
        if self.api_key_file:
            return self.api_key_file.read_text("utf-8").strip()
        return os.environ.get(KEY_VARIABLE) or None


def client_verb(verb: Callable[..., None]) -> Callable[..., None]:
    """Put the options of `Server` on a verb, which takes the server that they describe as its first argument."""
    return _with_server(verb, url=_keyword("url", dataclasses.MISSING, Url), make=Server)


def local_or_client_verb(verb: Callable[..., None]) -> Callable[..., None]:
    """The same for a verb that also works alone: the URL is `--server`, and without it the verb takes `None`."""
    return _with_server(verb, url=_keyword("url", None, UrlOption), make=_server_if_named)


def _server_if_named(*, url: str | None, **choices: Any) -> Server | None:
    if url is not None:
        return Server(url=url, **choices)
    defaults = {field.name: field.default for field in dataclasses.fields(Server)}
    given = [name for name, value in choices.items() if value != defaults[name]]
    if given:
        raise typer.BadParameter(f"--{given[0].replace('_', '-')} is about a server, and needs --server")
    return None


def _with_server(
    verb: Callable[..., None], *, url: inspect.Parameter, make: Callable[..., Server | None]
) -> Callable[..., None]:
    """Typer reads options from a function's signature, so this writes the one that both together have."""
    hints = get_type_hints(Server, include_extras=True)
    options = [
        _keyword(field.name, field.default, hints[field.name])
        for field in dataclasses.fields(Server)
        if field.name != url.name
    ]
    own = [
        _keyword(one.name, one.default, one.annotation)
        for one in list(inspect.signature(verb, eval_str=True).parameters.values())[1:]
    ]
    parameters = [url, *own, *options]
    shared = [url.name, *(option.name for option in options)]

    def run(**values: Any) -> None:
        verb(make(**{name: values.pop(name) for name in shared}), **values)

    run.__name__, run.__doc__ = verb.__name__, verb.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what `inspect` and typer read
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _keyword(name: str, default: object, annotation: object) -> inspect.Parameter:
    given = inspect.Parameter.empty if default is dataclasses.MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=given, annotation=annotation)
