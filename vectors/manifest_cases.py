"""The cases of the topic `manifest`: a release's reference values, and who signed them (docs/spec/manifest.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from vector_format import Case, base64url, fixed
from vector_operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = f"""version = 1
name = "blindai"
release = "1.2.0"
[tee.nitro]
pcr0 = ["{fixed("pcr0", 48).hex()}"]
""".encode()


def release_cases() -> Iterator[Case]:
    """A manifest, signed and verified, and everything that is no signature of it."""
    common: dict[str, Any] = {"topic": "manifest", "spec": "docs/spec/manifest.md §2", "covers": ("manifest",)}
    signed = {"key_seed": fixed("release key", 32), "manifest": MANIFEST}
    yield Case(slug="sign", title="a manifest is signed", operation="sign_release", inputs=signed, **common)
    made = OPERATIONS["sign_release"](signed)
    other = OPERATIONS["sign_release"]({**signed, "key_seed": fixed("other key", 32)})
    line, by_other = f"{made['line']}\n".encode(), f"{other['line']}\n".encode()
    good = {"manifest": MANIFEST, "signatures": line, "public_keys": [made["public_key"]]}
    common["operation"] = "verify_release"
    yield Case(slug="verify", title="and verified", inputs=good, **common)
    two = {**good, "signatures": by_other + line}
    yield Case(slug="verify-two", title="beside a signature by a key that nobody pins", inputs=two, **common)
    both = {**two, "public_keys": [other["public_key"], made["public_key"]]}
    yield Case(slug="verify-either", title="one of two pinned keys suffices", inputs=both, **common)
    common |= {"covers": (), "failure": "invalid_manifest"}
    key, signature = line.split()[1:]
    standard = line.replace(b"-", b"+").replace(b"_", b"/")
    bare = base64url(Ed25519PrivateKey.from_private_bytes(signed["key_seed"]).sign(MANIFEST)).encode()
    for slug, title, change in (
        ("other-key", "signed by a key that nobody pins", {"signatures": by_other}),
        ("changed", "a comment more", {"manifest": MANIFEST + b"# \n"}),
        ("line-ends", "line ends as on Windows", {"manifest": MANIFEST.replace(b"\n", b"\r\n")}),
        ("bare", "signed without the label", {"signatures": b"ed25519 " + key + b" " + bare + b"\n"}),
        ("other-name", "another algorithm's name", {"signatures": line.replace(b"ed25519", b"ed448")}),
        ("upper-name", "the name in upper case", {"signatures": line.replace(b"ed25519", b"ED25519")}),
        ("standard-base64", "another alphabet", {"signatures": standard}),
        ("padded", "base64 with padding", {"signatures": line[:-1] + b"==\n"}),
        ("short-key", "31 bytes of a key", {"signatures": b"ed25519 " + key[:-2] + b" " + signature + b"\n"}),
        ("no-line-end", "the last line does not end", {"signatures": line[:-1]}),
        ("carriage-return", "a carriage return before the line's end", {"signatures": line[:-1] + b"\r\n"}),
        ("blank-line", "a blank line", {"signatures": line + b"\n"}),
        ("two-spaces", "two spaces", {"signatures": line.replace(b" ", b"  ", 1)}),
        ("empty", "no line", {"signatures": b""}),
        ("too-many", "17 lines", {"signatures": by_other * 16 + line}),
    ):
        yield Case(slug=slug, title=title, inputs={**good, **change}, **common)
