"""What is kept between appraisals is what a vendor shows for many machines: nothing of one machine's is among it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attestation.times import forget_everything, kept_papers
from fakes.machines import machines

from blindai.attestation.checks import Checks

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

# Papers that are read once for many machines, by the function that reads them. Not among them: a VCEK, a PCK, an AK's
# or EK's certificate, those of a Nitro enclave and its instance, and those of a GPU's firmware and boot ROM.
_AMD = {"amd.certificates.read_amd_issuer": 2, "amd.certificates.read_crl": 1}
_INTEL = {
    "intel.endorsements._read_issuer": 3,
    "intel.endorsements._read_crl": 2,
    "intel.collateral.parse_tcb_info": 1,
    "intel.collateral.parse_qe_identity": 1,
}
_RIMS = {"nvidia.rim.read_rim": 2, "nvidia.rim.read_content": 2}
KEPT: Mapping[str, Mapping[str, int]] = {
    "azure_vtpm": {"x509_chain.read_issuer": 2},
    "nitro": {"x509_chain.read_issuer": 3},
    "nvidia_gpu": {"x509_chain.read_issuer": 7, **_RIMS},
    "sev_snp": _AMD,
    "sev_snp_vlek": _AMD,
    "sgx": _INTEL,
    "simulation": {},
    "tdx": _INTEL,
    "tdx_v4": _INTEL,
    "tpm": {"x509_chain.read_issuer": 2},
}


@pytest.mark.parametrize("name", sorted(KEPT))
def test_only_a_vendors_own_papers_are_kept(name: str) -> None:
    machine = machines()[name]
    forget_everything()
    machine.verify(machine.item, machine.now, Checks())
    assert kept_papers() == KEPT[name]


def test_every_kind_of_machine_is_looked_at() -> None:
    assert KEPT.keys() == machines().keys()
