"""`blindai policy …`: write a first policy, check one, compare two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from blindai.cli.options import JsonOption
from blindai.cli.policy_init import init
from blindai.cli.screen import note, plain, print_json, print_table, say

if TYPE_CHECKING:
    from blindai.attestation.policy import Policy
    from blindai.attestation.policy_diff import Wider

DIFFERENT = 1

app = typer.Typer(help="What to accept as proof.", no_args_is_help=True, rich_markup_mode=None)
app.command("init", short_help="Write a first policy from what is shown now.")(init)

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="a policy file, or a preset")]


@app.command("check", short_help="Show what a policy enforces, tracks and skips.")
def check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Read a policy, and show what it enforces, only tracks, and skips with which reason."""
    from blindai.attestation.policy_view import rules

    policy = _load(file)
    shown = tuple(rules(policy))
    if as_json:
        print_json({"source": policy.source, "rules": plain(shown)})
        return
    print_table(
        ("", "field", "accepts, or why not asked"), [(rule.force.value, rule.place, rule.accepts) for rule in shown]
    )
    counts = {rule.force: sum(one.force is rule.force for one in shown) for rule in shown}
    note(", ".join(f"{count} {force.value}" for force, count in counts.items()))
    if not policy.any_of:
        note("it names no TEE, so it accepts nobody: reference values are yours to write into a file")


@app.command("diff", short_help="Show what each of two policies alone accepts.")
def diff(one: FileArgument, other: FileArgument, as_json: JsonOption = False) -> None:
    """Show what each of two policies accepts and the other does not; exits with 1 if there is any such thing."""
    from blindai.attestation.policy_diff import wider

    first, second = _load(one), _load(other)
    less, more = wider(first, second), wider(second, first)
    if as_json:
        print_json({"only_first": plain(less), "only_second": plain(more)})
    else:
        _show(one, less, other, more)
    if less or more:
        raise typer.Exit(DIFFERENT)


def _show(one: str, less: tuple[Wider, ...], other: str, more: tuple[Wider, ...]) -> None:
    if not less and not more:
        say("both accept the same")
        return
    rows = [(name, entry.place, entry.accepts) for name, entries in ((one, less), (other, more)) for entry in entries]
    print_table(("accepted only by", "field", "what"), rows)


def _load(file: str) -> Policy:
    from blindai.policies import load_policy

    return load_policy(file)
