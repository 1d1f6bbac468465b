"""Whose model is whose: what another tenant can see, run, replace or delete, and what an owner lets it."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest

from blindai.bundle import UploadHeader
from blindai.client import flows
from blindai.errors import (
    ForbiddenError,
    ModelNotFoundError,
    NotAuthorizedError,
    OverloadedError,
    TooLargeError,
)
from blindai.server.access import Role
from blindai.server.quotas import Quota, RunSlots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from access.tenants import House


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """Other bytes; it is stored, and never loaded."""
    path = tmp_path / "other.onnx"
    path.write_bytes(b"other bytes")
    return path


def refusal(run: Callable[[], object]) -> tuple[type[Exception], str]:
    with pytest.raises((ModelNotFoundError, ForbiddenError, NotAuthorizedError)) as caught:
        run()
    return type(caught.value), re.sub(r"model: '[^']*'", "model: NAMED", str(caught.value))  # as it was asked for


def shares(house: House) -> set[str]:
    """Whose processes are up."""
    return {share for (_, share), instances in house.app.sealed.service.pool._instances.items() if instances}


def test_what_another_tenant_has_is_not_there(house: House, model: Path, other_model: Path) -> None:
    alpha, beta = house.person("alpha-admin"), house.person("beta-admin")
    digest = alpha.upload("m", model).digest
    absent = refusal(lambda: beta.infer("absent"))
    never_was = refusal(lambda: beta.delete("absent"))
    assert beta.names() == []
    for reference in ("m", f"m@{digest}", "alpha:m", f"alpha:m@{digest}", "public:m", "beta:m", None):
        assert refusal(partial(beta.infer, reference)) == (never_was if reference is None else absent)
        if reference is not None:
            assert refusal(partial(beta.delete, reference)) == never_was
    assert refusal(lambda: beta.access.share("m", run=("*",)))[0] is ModelNotFoundError
    beta.upload("m", other_model)  # a name of its own, and not alpha's replaced
    assert (beta.models()[0].version, beta.models()[0].digest == digest) == ("1", False)
    assert [(one.name, one.version, one.digest) for one in alpha.models()] == [("m", "1", digest)]
    assert beta.delete("m") == 1
    assert alpha.names() == ["m"]


def test_equal_models_of_two_tenants_live_and_end_apart(house: House, model: Path) -> None:
    alpha, beta = house.person("alpha-admin"), house.person("beta-admin")
    assert alpha.upload("m", model).digest == beta.upload("m", model).digest
    files = [path for path in (model.parent / "house0" / "store").iterdir() if path.is_file()]
    assert len(files) == 2  # nobody can tell from an upload that another has the same
    assert alpha.delete("m") == 1
    assert beta.infer("m") == [3.5, 41.5]
    assert shares(house) == {"beta"}


def test_last_is_the_last_of_ones_own_tenant(house: House, model: Path, other_model: Path) -> None:
    alpha, beta = house.person("alpha-admin"), house.person("beta-admin")
    alpha.upload("mine", model)
    beta.upload("theirs", other_model)
    assert alpha.infer(None) == [3.5, 41.5]


def test_an_owner_shares_and_stops_to_share(house: House, model: Path) -> None:
    alpha, guest = house.person("alpha-upload"), house.person("beta-infer")
    digest = alpha.upload("m", model).digest
    alpha.access.share("m", run=("beta",))
    assert guest.infer("alpha:m") == [3.5, 41.5]
    assert guest.names() == []
    described = guest.run(flows.read_metadata(guest.connection, f"alpha:m@{digest}", None))
    assert (described.name, described.versions, described.digest) == ("alpha:m", ("1",), digest)
    assert shares(house) == {"beta"}  # never in the owner's process
    alpha.access.share("m", run=("gamma",), visible=("beta",))
    assert guest.names() == ["alpha:m"]
    assert refusal(lambda: guest.infer("alpha:m"))[0] is ForbiddenError
    alpha.access.share("m", run=("*",), visible=("*",))
    assert guest.infer("alpha:m") == [3.5, 41.5]
    alpha.access.share("m")
    assert guest.names() == []
    assert refusal(lambda: guest.infer("alpha:m")) == refusal(lambda: guest.infer("alpha:absent"))


def test_a_guest_never_deletes_or_shares(house: House, model: Path) -> None:
    alpha, guest = house.person("alpha-upload"), house.person("beta-admin")
    alpha.upload("m", model)
    alpha.access.share("m", run=("*",), visible=("*",))
    assert refusal(lambda: guest.delete("alpha:m"))[0] is NotAuthorizedError
    assert refusal(lambda: guest.access.share("m", run=("*",)))[0] is ModelNotFoundError
    assert refusal(lambda: guest.access.share("alpha:m", run=("*",)))[0] is NotAuthorizedError
    assert alpha.names() == ["m"]


def test_a_name_is_not_shared_any_more_once_its_last_version_is_deleted(
    house: House, model: Path, other_model: Path
) -> None:
    alpha, guest = house.person("alpha-upload"), house.person("beta-infer")
    alpha.upload("m", model)
    alpha.upload("m", other_model)
    alpha.access.share("m", visible=("*",))
    alpha.run(flows.delete_model(alpha.connection, "m", "2"))
    assert guest.names() == ["alpha:m"]
    alpha.delete("m")
    alpha.upload("m", model)
    assert guest.names() == []


def test_what_the_operator_serves_is_everybodys_to_run_and_nobodys_to_change(
    house: House, model: Path, other_model: Path
) -> None:
    store, data = house.app.sealed.service.store, model.read_bytes()
    header = UploadHeader(version=None, files=(("m.onnx", len(data)),), default_shape=None, load=False)
    upload = store.begin_upload("m", header)  # as at start: of the tenant `public`
    upload.write(data)
    upload.complete()
    upload.register()
    beta = house.person("beta-admin")
    assert beta.names() == ["m"]
    assert beta.infer("m") == beta.infer("public:m") == [3.5, 41.5]
    assert refusal(lambda: beta.delete("m"))[0] is NotAuthorizedError
    assert refusal(lambda: beta.infer(None))[0] is ModelNotFoundError
    beta.upload("m", other_model)
    assert beta.names() == ["public:m", "m"]
    assert beta.infer("public:m") == [3.5, 41.5]
    assert beta.delete("m") == 1


def test_quotas_of_the_store_are_a_tenants_own(build: Callable[..., House], model: Path, other_model: Path) -> None:
    size = model.stat().st_size
    house = build(quotas=f"max_models = 2\nmax_bytes = {size + 20}")
    alpha, beta = house.person("alpha-upload"), house.person("beta-upload")
    for name in ("a", "b", "c"):
        alpha.upload(name, model)
    beta.upload("a", model)
    with pytest.raises(TooLargeError, match=f"your tenant keeps at most {size + 20} bytes"):
        beta.upload("b", model)
    beta.upload("b", other_model)
    with pytest.raises(TooLargeError, match="your tenant keeps at most 2 models"):
        beta.upload("c", other_model)
    beta.delete("b")
    beta.upload("c", other_model)


def test_runs_at_a_time_are_a_tenants_own(build: Callable[..., House], model: Path) -> None:
    house = build(quotas="max_concurrent_runs = 1")
    beta = house.person("beta-admin")
    beta.upload("m", model, load=True)
    with house.app.sealed.service.runs.run("beta"):
        with pytest.raises(OverloadedError, match="at most 1 inferences of a tenant"):
            beta.infer("m")
        with house.app.sealed.service.runs.run("alpha"), house.app.sealed.service.runs.run("alpha"):
            pass
    assert beta.infer("m") == [3.5, 41.5]


async def test_a_slot_is_given_back_whatever_happens() -> None:
    slots = RunSlots(lambda _tenant: Quota(max_concurrent_runs=2))

    async def fail() -> None:
        with slots.run("t"):
            await asyncio.sleep(0)
            raise ValueError

    outcomes = await asyncio.gather(*(fail() for _ in range(5)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == [*["OverloadedError"] * 3, *["ValueError"] * 2]
    assert not slots._running


def test_roles_are_named_in_the_order_of_their_power() -> None:
    assert list(Role) == [Role.INFER, Role.UPLOAD, Role.ADMIN]
