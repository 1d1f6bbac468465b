"""What a server shows, fetched before there is a policy to judge it by: for whoever writes a first policy.

Nothing is sent to the server but the question; nothing that it answers is believed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.client.attest_flow import Answer, ask
from blindai.client.http_sync import SyncTransport
from blindai.client.options import make_connection, server_url

if TYPE_CHECKING:
    from blindai.client.transport import HttpRequest


def fetch_unjudged(url: str, *, level: str, timeout_s: float = 120.0) -> Answer:
    """Ask the server at `url` for evidence of a level, `fresh` or `cached`.

    Raises:
        ChannelError: no answer.
        OverloadedError: not now.
    """
    connection = make_connection(
        None,
        insecure_simulation=False,
        service="",
        level=level,
        transport="sealed",
        sessions=False,
        padding=False,
        receipts=False,
        timeout_s=timeout_s,
        credential=None,
    )
    transport = SyncTransport(server_url(url, "sealed"))
    try:
        flow = ask(connection)
        request: HttpRequest = next(flow)
        while True:
            request = flow.send(transport.send(request))
    except StopIteration as done:
        answer: Answer = done.value
        return answer
    finally:
        transport.close()
