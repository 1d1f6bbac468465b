"""The proxy's page: is the server behind it verified, by which checks, and why. Nothing of anybody's data."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, RejectedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blindai.attestation.evidence import Finding
    from blindai.client.attestation_view import Attestation

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left}"
    ".passed{color:#176b17}.failed{color:#b00020;font-weight:bold}.skipped{color:#7a5b00}"
    ".warning{background:#b00020;color:#fff;padding:.6rem 1rem}"
)


def status_page(server: str, found: Attestation | BlindAIError) -> str:
    """The page as HTML."""
    if isinstance(found, BlindAIError):
        head = f"<p class=warning>Not verified, nothing is sent: {html.escape(str(found))}</p>"
        hint = f"<p>{html.escape(found.hint)}</p>" if found.hint else ""
        findings = found.findings if isinstance(found, RejectedEvidenceError) else ()
        return _document(server, head + hint + _table(findings))
    head = (
        f"<p>Level <b>{html.escape(found.level)}</b>, service <b>{html.escape(found.keyset.service)}</b>, "
        f"software {html.escape(found.keyset.software.name)} {html.escape(found.keyset.software.version)}.</p>"
    )
    if found.simulated:
        head = "<p class=warning>SIMULATION: no hardware protects this server.</p>" + head
    return _document(server, head + _table(found.findings))


def _table(findings: Iterable[Finding]) -> str:
    rows = "".join(
        f"<tr><td class={finding.outcome.value}>{finding.outcome.value}</td><td>{html.escape(finding.line())}</td></tr>"
        for finding in findings
    )
    return f"<table><tr><th>outcome</th><th>check</th></tr>{rows}</table>" if rows else ""


def _document(server: str, body: str) -> str:
    title = f"BlindAI proxy to {html.escape(server)}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1>{body}</html>"
    )
