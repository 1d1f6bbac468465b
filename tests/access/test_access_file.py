"""The access file: what it holds, and that every mistake in it is named."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from access.tenants import Keys, access_toml

from blindai.errors import InvalidSettingsError
from blindai.server.access import Role
from blindai.server.access_file import parse_access_file, read_access_file
from blindai.server.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from access.tenants import House

KEY = f'id = "k1"\nsha256 = "{"0" * 64}"\nroles = ["infer"]\n'
ISSUER = f'name = "i"\nalg = "EdDSA"\npublic_key = "{"A" * 43}"\nroles_max = ["infer"]\n'


def test_a_whole_file(keys: Keys) -> None:
    text = access_toml(keys, quotas="max_bytes = 10\nmax_models = 2\nmax_concurrent_runs = 3")
    file = parse_access_file(text.encode(), source="access.toml")
    alpha, beta = file.tenants
    assert [key.id for key in beta.keys] == ["beta-infer", "beta-upload", "beta-admin"]
    assert [issuer.roles_max for issuer in alpha.issuers] == [{Role.INFER, Role.UPLOAD}]
    assert (beta.quota.max_bytes, beta.quota.max_models, beta.quota.max_concurrent_runs) == (10, 2, 3)
    assert file.sha256 == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "`tenants` is missing"),
        ("tenants = 1", "`tenants` must be a table"),
        ("[tenants]", "`tenants` must name"),
        ("x = 1\n[tenants.a]", "`x` is not known"),
        ("[tenants.public]", "`tenants.public` is no tenant's name"),
        ("[tenants.A]", "`tenants.A` is no tenant's name"),
        ("[tenants.a]\nkey = []", "`tenants.a.key` is not known"),
        ("[tenants.a]\nkeys = 1", "`tenants.a.keys` must be a list"),
        ("[tenants.a]\nkeys = [1]", r"`tenants.a.keys\[0\]` must be a table"),
        ("[[tenants.a.keys]]", r"`tenants.a.keys\[0\].id` is missing"),
        (f'[[tenants.a.keys]]\n{KEY}secret = "s"', r"keys\[0\].secret` is not known"),
        (f"[[tenants.a.keys]]\n{KEY.replace('k1', 'K')}", r"keys\[0\].id` must be"),
        (f"[[tenants.a.keys]]\n{KEY.replace('k1', '')}", r"keys\[0\].id` expected printable"),
        (f"[[tenants.a.keys]]\n{KEY.replace('0' * 64, '0' * 63)}", r"keys\[0\].sha256` must be 64"),
        (f"[[tenants.a.keys]]\n{KEY.replace('0' * 64, 'A' * 64)}", r"keys\[0\].sha256` must be 64"),
        (f"[[tenants.a.keys]]\n{KEY.replace('infer', 'root')}", r"keys\[0\].roles` must be a list"),
        ("[[tenants.a.keys]]\n" + KEY.replace('["infer"]', "[]"), r"keys\[0\].roles` must be a list"),
        ("[[tenants.a.keys]]\n" + KEY.replace('["infer"]', '[["infer"]]'), r"keys\[0\].roles` must be a list"),
        (f"[[tenants.a.keys]]\n{KEY}not_after = 2027-01-01", r"keys\[0\].not_after` must be a time"),
        (f"[[tenants.a.keys]]\n{KEY}not_after = 2027-01-01T00:00:00", r"keys\[0\].not_after` must be a time"),
        (f"[[tenants.a.keys]]\n{KEY}[[tenants.b.keys]]\n{KEY}", "the key id 'k1' is used twice"),
        ("[[tenants.a.issuers]]\n" + ISSUER.replace("EdDSA", "HS256"), r"issuers\[0\].alg` must be one of"),
        ("[[tenants.a.issuers]]\n" + ISSUER.replace("A" * 43, "A" * 42), r"issuers\[0\].public_key` must be"),
        (f"[[tenants.a.issuers]]\n{ISSUER}[[tenants.b.issuers]]\n{ISSUER}", "the issuer 'i' is used twice"),
        ("[tenants.a.quotas]\nmax_bytes = 0", "`tenants.a.quotas.max_bytes` must be a whole number"),
        ("[tenants.a.quotas]\nmax_bytes = true", "`tenants.a.quotas.max_bytes` must be a whole number"),
        ("[tenants.a.quotas]\nmax_rate = 1", "`tenants.a.quotas.max_rate` is not known"),
        ("[tenants.a\n", "not TOML: .*line 1"),
    ],
)
def test_a_mistake_is_named(text: str, named: str) -> None:
    with pytest.raises(InvalidSettingsError, match=named) as caught:
        parse_access_file(text.encode(), source="access.toml")
    assert str(caught.value).startswith("access.toml: ")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingsError, match="No such file"):
        read_access_file(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidSettingsError, match="not TOML"):
        read_access_file(tmp_path / "bad.toml")


def test_a_file_that_nobody_looks_at_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="authentication is open"):
        load_settings(None, {"simulation": True, "access": "access.toml"})
    with pytest.raises(InvalidSettingsError, match="no access file"):
        load_settings(None, {"simulation": True, "authentication": "required"})


def test_evidence_vouches_for_the_files_content_and_not_for_its_path(build: Callable[..., House], keys: Keys) -> None:
    first, same, other = build(), build(), build(quotas="max_models = 1")
    policies = [house.app.sealed.keys.epoch().keyset.runtime for house in (first, same, other)]
    assert {policy.authentication for policy in policies} == {"required"}
    assert policies[0].configuration == policies[1].configuration != policies[2].configuration
    pin = f"sha256:{hashlib.sha256(access_toml(keys).encode()).hexdigest()}"
    assert policies[0].configuration == Settings(simulation=True, authentication="required", access=pin).digest()
