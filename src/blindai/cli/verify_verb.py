"""`blindai verify`: check somebody's proof offline, long after the server is gone."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.cli.options import JsonOption, PolicyOption, ServiceOption, SimulationOption, chosen_policy, moment
from blindai.cli.screen import plain, print_findings, print_json, print_refusal, say, warn_of_simulation
from blindai.errors import RejectedEvidenceError

if TYPE_CHECKING:
    from blindai.client.proof import VerifiedProof


def verify(
    proof: Annotated[Path, typer.Argument(metavar="PROOF.json", help="the published proof")],
    opening: Annotated[
        Path | None, typer.Option("--opening", help="the private opening, to check the data too")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="judge the evidence at this time")] = None,
    policy: PolicyOption = None,
    insecure_simulation: SimulationOption = False,
    service: ServiceOption = DEFAULT_SERVICE,
    as_json: JsonOption = False,
) -> None:
    """Verify a proof offline: which code answered what."""
    from blindai.client.proof import opened_outputs, parse_opening, verify_proof
    from blindai.client.saved_response import read_any_proof

    now = time.time() if at is None else moment(at)
    accepted = chosen_policy(policy, insecure_simulation=insecure_simulation)
    try:
        found, enclosed = read_any_proof(proof.read_bytes())
        verified = verify_proof(
            found,
            accepted,
            service=service,
            now=now,
            opening=parse_opening(opening.read_bytes()) if opening else enclosed,
        )
    except RejectedEvidenceError as error:
        if not as_json:
            print_refusal(error)
        raise
    outputs = opened_outputs(verified.opening) if verified.opening else None
    warn_of_simulation(verified.keyset.result.simulated)
    if as_json:
        print_json(_members(verified, outputs, at))
    else:
        _show(verified, outputs, at)


def _members(verified: VerifiedProof, outputs: list[dict[str, Any]] | None, at: str | None) -> dict[str, Any]:
    return {
        "level": verified.keyset.level.text,
        "simulated": verified.keyset.result.simulated,
        "assumed_time": at,
        "receipt": plain(verified.receipt),
        "findings": plain(verified.keyset.result.findings),
        "outputs": outputs,
    }


def _show(verified: VerifiedProof, outputs: list[dict[str, Any]] | None, at: str | None) -> None:
    receipt, keyset = verified.receipt, verified.keyset
    print_findings(keyset.result.findings)
    say(f"\n✓ the receipt is signed by the attested keys; level {keyset.level.text}")
    if model := receipt.model:
        say(f"  model   {model.name} version {model.version}\n  digest  {model.digest}\n  engine  {model.engine}")
    started = dt.datetime.fromtimestamp(receipt.start_ms / 1000, dt.UTC).isoformat(timespec="seconds")
    say(f"  when    {started} by the server's clock, which its host can shift")
    if at:
        say(f"  judged  at {at}, a time that is assumed and not proven")
    if outputs is None:
        say("  data    not opened (give --opening to check a request and its answer)")
        return
    say("✓ the opened request and answer are those of the receipt")
    for tensor in outputs:
        say(f"  {tensor['name']}: {tensor['datatype']} {tensor['shape']}\n    {' '.join(tensor['data'])}")
