"""`blindai`: the list of verbs, and how their errors become exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import blindai
from blindai.cli import (
    access_verbs,
    client_verbs,
    evidence_verb,
    explain_verb,
    manifest_verbs,
    policy_verbs,
    proxy_verb,
    server_verbs,
    verify_verb,
)
from blindai.cli.bench import bench
from blindai.cli.check import check
from blindai.cli.exit_codes import FAILED, INTERRUPTED, USAGE, exit_code
from blindai.cli.optimize import optimize
from blindai.cli.screen import error_members, file_error, print_error, print_json, use_any_encoding
from blindai.errors import BlindAIError

# A path that the user gave and that cannot be what it should be.
_UNUSABLE_PATH = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)

app = typer.Typer(
    name="blindai",
    help="Confidential AI inference: verify the enclave, then send it data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve", short_help="Serve models: simulated, or attested by a TPM.")(server_verbs.serve)
app.command("demo")(server_verbs.demo)
app.command("attest")(client_verbs.attest)
app.command("upload")(client_verbs.upload)
app.command("infer")(client_verbs.infer)
app.command("models")(client_verbs.models)
app.command("delete")(client_verbs.delete)
app.command("verify")(verify_verb.verify)
app.command("verify-evidence", short_help="Judge evidence in files, or folders of samples.")(
    evidence_verb.verify_evidence
)
app.command("explain", short_help="Say what a finding means, and what to do.")(explain_verb.explain)
app.command("proxy", short_help="Verify a server, then forward plain requests to it.")(proxy_verb.proxy)
app.command("optimize", short_help="Write a smaller variant of a model.")(optimize)
app.command("bench")(bench)
app.command("check", short_help="Say whether a server would serve a model.")(check)
app.add_typer(access_verbs.app, name="access")
app.add_typer(policy_verbs.app, name="policy")
app.add_typer(manifest_verbs.app, name="manifest")


def _print_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it with the flag
    if wanted:
        typer.echo(f"blindai {blindai.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # handled by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Confidential AI inference: verify the enclave, then send it data."""


def main() -> None:
    """Run a verb; an error of ours becomes a message, a hint and an exit code."""
    use_any_encoding()
    try:
        app(prog_name="blindai")
    except BlindAIError as error:
        _report(error)
        sys.exit(exit_code(error))
    except OSError as error:
        _report(BlindAIError(file_error(error)))
        sys.exit(USAGE if isinstance(error, _UNUSABLE_PATH) else FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _report(error: BlindAIError) -> None:
    if "--json" in sys.argv:
        print_json(error_members(error))
    else:
        print_error(error)


if __name__ == "__main__":
    main()
