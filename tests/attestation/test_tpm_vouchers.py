"""Who vouches for an AK: what an activation is worth, and under whose root."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from attestation.test_tpm_checks import VENDOR, claims_of, failures, good_claims, outcomes, policy
from fakes.tpm_vendor import EK_PURPOSE, FakeTpm, FakeVendor, rsa_key

from blindai.attestation.evidence import Outcome
from blindai.attestation.policy_file import Skip
from blindai.attestation.tpm2.vouchers import Activation, Vouchers, needs_activation
from blindai.errors import InvalidPolicyError
from blindai.policies import preset_table

if TYPE_CHECKING:
    from blindai.attestation.tee.tpm import TpmClaims
    from blindai.attestation.tpm2.policy import TpmPolicy

MAKER = FakeVendor(name="a maker that is not pinned")
MAKERS_ROOT = MAKER.pinned[0].sha256
ANY_NAME = '{ skip = "any" }'


def with_ek(vendor: FakeVendor = VENDOR) -> TpmClaims:
    leaf = vendor.certify(rsa_key(1), signs=False, purposes=(EK_PURPOSE,))
    return claims_of(FakeTpm(endorsements=vendor.chain(leaf, "ek")))


def activation_policy(**fields: str) -> TpmPolicy:
    return policy(**{"ak_certified": '["activation"]', "ak_names": ANY_NAME, **fields})


def proven_by(claims: TpmClaims, **changed: object) -> Activation:
    proven = Activation(ek_key_sha256=claims.ek_key_sha256, ak_name=claims.ak_name)
    return dataclasses.replace(proven, **changed)  # type: ignore[arg-type]


def test_an_endorsement_key_counts_only_after_the_channels_own_challenge() -> None:
    claims, accepted = with_ek(), activation_policy()
    assert failures(claims, accepted) == {"activation", "ak_certified"}
    assert outcomes(claims, accepted)["activation"].found == "nobody who asked the TPM"
    shown = outcomes(claims, accepted.with_activation(proven_by(claims)))
    assert {finding.outcome for finding in shown.values()} <= {Outcome.PASSED, Outcome.SKIPPED}
    assert (shown["activation"].found, shown["activation"].hint) == ("that proof", "")
    assert shown["ak_certified"].found == "activation"


@pytest.mark.parametrize(
    "changed",
    [{"ak_name": b"\x00\x0b" + bytes(32)}, {"ek_key_sha256": bytes(32)}, {"refusal": "another TPM"}],
    ids=["another-ak", "another-ek", "refused"],
)
def test_an_activation_of_something_else_counts_for_nothing(changed: dict[str, object]) -> None:
    claims = with_ek()
    accepted = activation_policy().with_activation(proven_by(claims, **changed))
    assert failures(claims, accepted) == {"activation", "ak_certified"}
    expected = str(changed.get("refusal", "nobody who asked the TPM"))
    assert outcomes(claims, accepted)["activation"].found == expected


def test_an_activation_of_a_later_try_counts() -> None:
    claims = with_ek()
    accepted = activation_policy().with_activation(proven_by(claims, refusal="too busy"))
    assert failures(claims, accepted.with_activation(proven_by(claims))) == set()


def test_without_an_ek_nothing_was_activated() -> None:
    claims = claims_of(FakeTpm())
    accepted = activation_policy().with_activation(proven_by(claims))
    assert failures(claims, accepted) == {"activation", "ak_certified"}
    assert outcomes(claims, accepted)["activation"].found == "no certificate of an EK"


def test_the_root_of_an_ek_is_pinned_or_named() -> None:
    claims = with_ek(MAKER)
    activated = activation_policy().with_activation(proven_by(claims))
    assert failures(claims, activated) == {"ek_chain_root", "activation", "ak_certified"}
    assert outcomes(claims, activated)["activation"].found == "an EK whose root the policy does not name"
    named = activation_policy(ek_roots=str([bytes(32).hex(), MAKERS_ROOT.hex()])).with_activation(proven_by(claims))
    assert failures(claims, named) == set()
    assert outcomes(claims, named)["ek_chain_root"].found == MAKERS_ROOT.hex()
    assert outcomes(with_ek(), activation_policy())["ek_chain_root"].found == "google"


def test_a_root_that_is_left_out_certifies_nothing() -> None:
    """`skip` is for who names the AK and does not care whose TPM it is: it must not make every root a good one."""
    claims = with_ek(MAKER)
    accepted = activation_policy(ek_roots='{ skip = "any" }').with_activation(proven_by(claims))
    assert failures(claims, accepted) == {"activation", "ak_certified"}
    assert outcomes(claims, accepted)["ek_chain_root"].outcome is Outcome.SKIPPED
    by_name = policy(ak_certified='["ak_name"]', ak_names=str([claims.ak_name.hex()]), ek_roots='{ skip = "any" }')
    assert failures(claims, by_name) == set()


@pytest.mark.parametrize("value", ['["swtpm"]', '"*"', '["00"]', "true"])
def test_a_root_is_named_by_its_whole_fingerprint(value: str) -> None:
    with pytest.raises(InvalidPolicyError, match="ek_roots"):
        policy(ek_roots=value)


def test_tracking_the_activation_does_not_make_up_for_it() -> None:
    accepted = activation_policy(track='["tpm.activation", "tpm.ek_chain_root"]')
    assert failures(with_ek(), accepted) == {"activation", "ak_certified"}  # `track` is applied by appraise
    claims = with_ek(MAKER)
    assert "ak_certified" in failures(claims, accepted.with_activation(proven_by(claims)))


def test_the_tpm_is_asked_only_if_nothing_else_that_is_accepted_vouches() -> None:
    name = good_claims().ak_name
    bare = Vouchers(ak_name=name, has_vendor_chain=False)
    certified = Vouchers(ak_name=name, has_vendor_chain=True)
    both = activation_policy(ak_certified='["vendor_certificate", "activation"]')
    by_name = activation_policy(ak_certified='["activation", "ak_name"]', ak_names=str([name.hex()]))
    assert needs_activation(both, bare)
    assert not needs_activation(both, certified)
    assert not needs_activation(by_name, bare)
    assert needs_activation(activation_policy(), certified)  # a certificate that the policy does not take
    assert not needs_activation(policy(), bare)
    assert not needs_activation(dataclasses.replace(policy(), ak_certified=Skip(reason="a test")), bare)
    assert "activation" not in outcomes(good_claims(), both)


def test_no_preset_names_a_root_of_its_own_or_takes_an_activation_unasked() -> None:
    for preset in ("strict", "cloud-gcp", "cloud-azure"):
        table = preset_table(preset, "tpm") or {}
        assert table["ek_roots"] == []
        assert table["ak_certified"] == ["vendor_certificate"]


def test_the_root_of_an_ek_is_shown() -> None:
    assert ("EK certified by", MAKERS_ROOT.hex()) in with_ek(MAKER).facts()
    assert ("EK certified by", "google") in with_ek().facts()
    assert ("EK certified by", "no vendor") in claims_of(FakeTpm()).facts()
