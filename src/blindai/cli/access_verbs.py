"""`blindai access …`: make and check access files offline, and manage keys and sharing on a running server.

Leaves out: tokens, which an organisation's own issuer signs.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindai.cli.options import JsonOption, Server, client_verb
from blindai.cli.screen import note, plain, print_json, print_table, say
from blindai.errors import BlindAIError, InvalidSettingsError

if TYPE_CHECKING:
    from blindai.server.access_file import AccessFile

app = typer.Typer(help="Tenants, API keys and sharing.", no_args_is_help=True, rich_markup_mode=None)

_ROLES = ("infer", "upload", "admin")
RoleOption = Annotated[
    list[str], typer.Option("--role", metavar="ROLE", help="infer, upload or admin; may be given again")
]
NotAfterOption = Annotated[
    dt.datetime | None,
    typer.Option("--not-after", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="when the key ends, in UTC"),
]


@app.command("new-key")
def new_key(
    tenant: Annotated[str, typer.Option("--tenant", help="whose key it is")],
    role: RoleOption,
    key_id: Annotated[str | None, typer.Option("--id", help="its id [default: drawn]")] = None,
    not_after: NotAfterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw an API key; print it, and the lines that an access file needs to know it.

    The key goes to its user, and the lines to the server's operator, who cannot find the key from them.
    """
    import json
    import os

    from blindai.server.credentials import draw_key, key_digest

    drawn_id, key = draw_key(os.urandom, key_id)
    lines = [
        f"[[tenants.{tenant}.keys]]",
        f'id = "{drawn_id}"',
        f'sha256 = "{key_digest(key).hex()}"',
        f"roles = {json.dumps(_known(role))}",
    ]
    if not_after is not None:
        lines.append(f"not_after = {not_after:%Y-%m-%dT%H:%M:%SZ}")
    entry = "\n".join(lines) + "\n"
    _check(entry.encode(), "the new key")
    if as_json:
        print_json({"id": drawn_id, "key": key, "entry": entry})
        return
    note("the key, for its user; it is shown this once:")
    say(key)
    note("\nfor the access file:")
    say(entry)


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="an access file")],
    as_json: JsonOption = False,
) -> None:
    """Check an access file, and print its hash as it enters the attested configuration."""
    checked = _check(file.read_bytes(), str(file))
    rows = [
        (tenant.name, str(len(tenant.keys)), ", ".join(issuer.name for issuer in tenant.issuers) or "none")
        for tenant in checked.tenants
    ]
    if as_json:
        print_json({"tenants": [row[0] for row in rows], "access": checked.pin})
        return
    print_table(("tenant", "keys", "issuers"), rows)
    say(f"access = {checked.pin}")


@client_verb
def keys(server: Server, as_json: JsonOption = False) -> None:
    """List your tenant's keys on a server; needs the role admin."""
    with server.connect() as client:
        listed = client.access.keys()
    if as_json:
        print_json([{**plain(key), "not_after": _shown(key.not_after), "created": _shown(key.created),
                     "last_used": _shown(key.last_used)} for key in listed])  # fmt: skip
        return
    rows = [
        (key.id, ", ".join(key.roles), _shown(key.created) or "in the access file", _shown(key.not_after) or "never",
         _shown(key.last_used) or "not yet")
        for key in listed
    ]  # fmt: skip
    print_table(("id", "roles", "created", "ends", "last used"), rows)


@client_verb
def create_key(server: Server, role: RoleOption, not_after: NotAfterOption = None, as_json: JsonOption = False) -> None:
    """Make a key for your tenant on a running server, until it is revoked or the server stops; needs the role admin."""
    ends = None if not_after is None else not_after.replace(tzinfo=dt.UTC)
    with server.connect() as client:
        made = client.access.create_key(_known(role), not_after=ends)
    if as_json:
        print_json({"id": made.id, "key": made.key, "roles": list(made.roles)})
        return
    note(f"key {made.id}; it is shown this once:")
    say(made.key)


@client_verb
def revoke_key(
    server: Server,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="its id, as `access keys` lists it")],
    as_json: JsonOption = False,
) -> None:
    """Revoke a key of your tenant at once; needs the role admin."""
    with server.connect() as client:
        client.access.revoke_key(key_id)
    if as_json:
        print_json({"revoked": key_id})
    else:
        say(f"revoked {key_id}")


@client_verb
def share(
    server: Server,
    model: Annotated[str, typer.Argument(help="the name of a model of your tenant")],
    run: Annotated[list[str] | None, typer.Option("--run", metavar="TENANT", help="may run it; '*' for all")] = None,
    visible: Annotated[
        list[str] | None, typer.Option("--visible", metavar="TENANT", help="finds it in its list; '*' for all")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say with whom a model is shared from now on; who is not named is shut out. Needs the role upload."""
    with server.connect() as client:
        client.access.share(model, run=run or (), visible=visible or ())
    if as_json:
        print_json({"model": model, "run": run or [], "visible": visible or []})
    else:
        say(f"{model}: run by {', '.join(run or ['nobody else'])}, seen by {', '.join(visible or ['nobody else'])}")


for _name, _verb in (("keys", keys), ("create-key", create_key), ("revoke-key", revoke_key), ("share", share)):
    app.command(_name)(_verb)


def _check(data: bytes, source: str) -> AccessFile:
    try:
        from blindai.server.access_file import parse_access_file
    except ModuleNotFoundError as error:
        raise BlindAIError(f"this needs {error.name}", hint="pip install 'blindai[server]'") from None
    return parse_access_file(data, source=source)


def _known(roles: list[str]) -> list[str]:
    for role in roles:
        if role not in _ROLES:
            raise InvalidSettingsError(f"a role is one of {', '.join(_ROLES)}, not {role!r}")
    return [role for role in _ROLES if role in roles]


def _shown(time: dt.date | None) -> str | None:
    return None if time is None else time.isoformat()
