"""From what a user writes to what the flows take: policies, levels and model files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import Level
from blindai.attestation.policy import Policy, insecure_simulation_policy
from blindai.bundle import MODEL_NAME, OWNER_KEY_BYTES
from blindai.bundle_files import discover_upload
from blindai.client.connection import SYSTEM_CLOCK, ClientSettings, Connection
from blindai.client.flows import ModelFiles, Progress
from blindai.client.own_endorsements import Endorsements
from blindai.client.transport import parse_server_url
from blindai.errors import InvalidInputError
from blindai.policies import load_policy
from blindai.wire import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blindai.client.transport import ServerUrl
    from blindai.endorsements.documents import Source

LEVELS = {"fresh": Mode.FRESH, "cached": Mode.CACHED}
TRANSPORTS = ("sealed", "tls")
PINNED_LEVEL = Level.PINNED_TLS.text


def make_connection(  # noqa: PLR0913  # the options of `Client`, by keyword
    policy: str | Path | Policy | None,
    *,
    insecure_simulation: bool,
    service: str,
    level: str | None,
    transport: str,
    sessions: bool,
    padding: bool,
    receipts: bool,
    timeout_s: float,
    credential: Callable[[], str] | None,
    endorsements: Endorsements | Source | None = None,
) -> Connection:
    """What a new client knows: the options of `Client`, and no keys yet.

    Raises:
        InvalidInputError: no such level or transport, two that exclude each other, or a policy beside
            `insecure_simulation`; or endorsements that say nothing.
        InvalidPolicyError: the policy file cannot be read.
        EndorsementsUnavailableError: a bundle of endorsements cannot be read.
    """
    settings = ClientSettings(
        policy=make_policy(policy, insecure_simulation=insecure_simulation),
        service=service,
        mode=_mode(level, transport),
        pins_tls=transport == "tls",
        sessions=sessions,
        padded=padding,
        receipts=receipts,
        timeout_s=timeout_s,
        credential=credential,
        endorsements=endorsements.open() if isinstance(endorsements, Endorsements) else endorsements,
    )
    return Connection(settings, clock=SYSTEM_CLOCK, random=os.urandom)


def _mode(level: str | None, transport: str) -> Mode:
    """The kind of evidence to ask for: epoch keysets alone name TLS keys."""
    if transport not in TRANSPORTS:
        raise InvalidInputError(f"transport is one of {', '.join(TRANSPORTS)}, not {transport!r}")
    if transport == "sealed":
        if level is not None and level not in LEVELS:
            raise InvalidInputError(f"level is one of {', '.join(LEVELS)}, not {level!r}")
        return LEVELS[level or "fresh"]
    if level not in {None, PINNED_LEVEL}:
        raise InvalidInputError(
            f"over transport='tls' nothing is better than {PINNED_LEVEL!r}, and {level!r} was asked for",
            hint="leave out transport='tls' for the sealed door, which reaches 'fresh'",
        )
    return Mode.CACHED


def server_url(url: str, transport: str, certificate: object = None) -> ServerUrl:
    """Where to, and how.

    Raises:
        ChannelError: not a server's address.
        InvalidInputError: pinned TLS without TLS.
    """
    parsed = parse_server_url(url)
    if transport == "tls" and parsed.scheme != "https":
        raise InvalidInputError("transport='tls' needs an https:// address", hint="the sealed door works over http://")
    if certificate is not None and parsed.scheme != "https":
        raise InvalidInputError("a certificate needs an https:// address", hint="leave out http:// or the certificate")
    return parsed


def without_keys(connection: Connection) -> Connection:
    """The same connection without keys and credential: what a closed client keeps."""
    settings = dataclasses.replace(connection.settings, credential=None)
    return Connection(settings, clock=connection.clock, random=connection.random)


def make_policy(policy: str | Path | Policy | None, *, insecure_simulation: bool) -> Policy:
    """What to accept: a file, a preset, a `Policy`, or (on purpose) simulation.

    Raises:
        InvalidInputError: a policy beside `insecure_simulation`.
        InvalidPolicyError: the policy file cannot be read.
    """
    if insecure_simulation:
        if policy is not None:
            raise InvalidInputError(
                "a policy and insecure_simulation exclude each other",
                hint="a policy that shall accept simulation says so itself: `insecure_simulation = true`",
            )
        return insecure_simulation_policy()
    if isinstance(policy, Policy):
        return policy
    return load_policy(policy if policy is not None else "strict")


def model_files(
    model: str | os.PathLike[str],
    *,
    name: str | None,
    version: str | None,
    data_files: Sequence[str | os.PathLike[str]] | None,
    shape: Sequence[int] | None,
    load: bool,
    owner_key: str | None,
) -> ModelFiles:
    """Find a model's files and name it.

    Raises:
        FileNotFoundError: a file is not there.
        InvalidInputError: the name is not one.
        InvalidModelError: the files make no bundle.
    """
    path = Path(model)
    paths = discover_upload(path, None if data_files is None else [Path(file) for file in data_files])
    called = name if name is not None else path.stem
    if not MODEL_NAME.match(called):
        raise InvalidInputError(
            f"{called!r} cannot be a model's name: it has at most 128 letters, digits, dots, dashes and underscores",
            hint="give it another with name=…",
        )
    return ModelFiles(
        name=called,
        version=None if version is None else str(version),  # 2 is as good as "2"
        paths=paths,
        default_shape=None if shape is None else tuple(int(axis) for axis in shape),
        load=load,
        owner_key=None if owner_key is None else _owner_key(owner_key),
    )


def _owner_key(text: str) -> bytes:
    try:
        return exact_bytes(text, OWNER_KEY_BYTES)
    except ValueError:
        raise InvalidInputError(
            "the owner's key is no Ed25519 public key in unpadded base64url", hint="`blindai manifest sign` shows yours"
        ) from None


@contextlib.contextmanager
def progress_of(
    progress: Progress | bool | None,  # noqa: FBT001  # the user's own choice, handed through
    files: ModelFiles,
) -> Iterator[Progress | None]:
    """The callback to report to: the user's own, a bar on a terminal, or none."""
    if callable(progress):
        yield progress
        return
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  # rich costs 50 ms, and only a terminal needs it
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415  # likewise

    columns = (
        "[progress.description]{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"uploading {files.name}", total=sum(path.stat().st_size for path in files.paths))
        yield lambda done, total: bar.update(task, completed=done, total=total)
