"""Server addresses: what is read, what is refused, and that a password in one is never repeated."""

from __future__ import annotations

import pytest

from blindai.client.transport import parse_server_url
from blindai.errors import ChannelError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", "https://localhost:50051"),
        ("localhost:1", "https://localhost:1"),
        ("HTTPS://Host.example:443/", "https://host.example:443"),
        ("http://10.0.0.1", "http://10.0.0.1:50051"),
        ("[::1]:50051", "https://[::1]:50051"),
        ("https://[::1]", "https://[::1]:50051"),
    ],
)
def test_reads_server_addresses(text: str, expected: str) -> None:
    assert str(parse_server_url(text)) == expected
    assert parse_server_url(expected) == parse_server_url(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://h/v2", "a path"),
        ("https://h/?q=1", "a query"),
        ("h#f", "a fragment"),
        ("https://user:secret@h", "user information"),
        ("ftp://h", "the scheme"),
        ("::1", "brackets"),
        ("h:70000", "port 70000"),
        ("h:0", "port 0"),
        ("h:", "cannot be told"),
        ("h\n", "cannot be told"),
        ("", "cannot be told"),
        ("höst", "cannot be told"),
    ],
)
def test_refuses_other_addresses_without_repeating_them(text: str, reason: str) -> None:
    with pytest.raises(ChannelError, match=reason) as failure:
        parse_server_url(text)
    assert "secret" not in str(failure.value)
