"""A GPU's report is completed with RIMs and OCSP answers over real HTTP, and then verifies; a fake NVIDIA answers."""

from __future__ import annotations

import base64
import dataclasses
import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fakes import nvidia
from fakes.vendor_services import Reply, VendorServices, vendor_services

from blindai.attestation.checks import Checks
from blindai.attestation.nvidia.report import parse
from blindai.attestation.tee import nvidia_gpu
from blindai.endorsements import complete
from blindai.endorsements.bundle import Recorder, encode_bundle, parse_bundle
from blindai.endorsements.nvidia import ocsp_resource
from blindai.endorsements.services import Endpoints, Services
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import EvidenceItem

pytestmark = pytest.mark.network
AT = nvidia.NOW.timestamp()


@pytest.fixture
def far() -> Iterator[VendorServices]:
    with vendor_services() as services:
        yield services


def near(far: VendorServices) -> Services:
    return Services(endpoints=Endpoints(nvidia_ocsp=far.url, nvidia_rim=far.url), sleep=lambda _: None)


def serve(far: VendorServices, shown: nvidia.Shown) -> EvidenceItem:
    """Put RIMs and answers where NVIDIA has them; what is left is the report and its certificates."""
    device = parse(shown.report).device
    for name, published in (("driver_rim", device.driver_rim), ("vbios_rim", device.vbios_rim)):
        body = json.dumps({"id": published, "rim": base64.b64encode(shown.rims[name]).decode()}).encode()
        far.replies[f"/v1/rim/{published}"] = Reply(body=body)
    far.replies["/"] = [Reply(body=answer) for answer in shown.answers]
    return shown.replace(rims={}, answers=()).item()


def verify(item: EvidenceItem) -> nvidia_gpu.NvidiaGpuClaims:
    device_root, rim_root = (nvidia.pinned(nvidia.root(name)) for name in ("Device root", "RIM root"))
    return nvidia_gpu.verify(item, AT, Checks(), device_root=device_root, rim_root=rim_root)


def test_rims_by_the_reports_names_and_an_answer_about_each_certificate(far: VendorServices) -> None:
    shown = nvidia.hopper()
    completed = complete(serve(far, shown), near(far), now=AT)
    claims = verify(completed)
    assert (claims.unanswered, len(claims.answers)) == ((), len(shown.answers))
    assert far.asked[:2] == [path for path in far.replies if path.startswith("/v1/rim/NV_GPU_")]
    links = [link for chain in (shown.chain[1:], nvidia.rim_chain()) for link in pairwise(chain)]
    assert far.posted == [ocsp_resource(*link).post for link in links]


def test_stapled_answers_give_way(far: VendorServices) -> None:
    bare = serve(far, nvidia.hopper())
    stale = dataclasses.replace(bare, endorsements=(*bare.endorsements, ("ocsp_9", b"old"), ("driver_rim", b"old")))
    verify(complete(stale, near(far), now=AT))


def test_a_device_without_its_certificates_is_told(far: VendorServices) -> None:
    bare = dataclasses.replace(serve(far, nvidia.hopper()), endorsements=())
    with pytest.raises(EndorsementsUnavailableError, match="the device's certificates stand on no public service"):
        complete(bare, near(far), now=AT)


def test_a_rim_that_nvidia_does_not_publish_is_told(far: VendorServices) -> None:
    bare = serve(far, nvidia.hopper())
    del far.replies[next(path for path in far.replies if "DRIVER" in path)]
    with pytest.raises(EndorsementsUnavailableError, match=r"NV_GPU_DRIVER_GH100_.*no such document"):
        complete(bare, near(far), now=AT)


def test_a_bundle_answers_as_the_services_did(far: VendorServices) -> None:
    bare = serve(far, nvidia.hopper())
    recorder = Recorder(behind=near(far))
    completed = complete(bare, recorder, now=AT)
    assert complete(bare, parse_bundle(encode_bundle(recorder.answers), name="b"), now=AT) == completed
