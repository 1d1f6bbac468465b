"""A server with two tenants, new for each test: starting one costs little until a model runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from access.tenants import House, Keys, access_toml, build_house, draw_keys
from attacks.conftest import adder_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def keys() -> Keys:
    return draw_keys()


@pytest.fixture
def build(tmp_path: Path, keys: Keys) -> Iterator[Callable[..., House]]:
    """Makes houses whose access file a test chooses."""
    loop = asyncio.new_event_loop()
    houses: list[House] = []

    def make(*, quotas: str = "", alg: str = "EdDSA") -> House:
        folder = tmp_path / f"house{len(houses)}"
        folder.mkdir()
        houses.append(build_house(folder, loop, keys, access_toml(keys, quotas=quotas, alg=alg)))
        return houses[-1]

    yield make
    for house in houses:
        loop.run_until_complete(house.app.sealed.service.pool.close())
        house.app.sealed.service.store.close()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    return build()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Y = x + 1.5, over float [n]."""
    path = tmp_path / "adder.onnx"
    path.write_bytes(adder_model())
    return path
