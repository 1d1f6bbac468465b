"""One server for each file of attacks: starting a model's process costs more than most attacks do."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from attacks.world import ADDED, MODEL, Effects, Time, World
from onnx import TensorProto, helper

from blindai.attester.simulation import SimulationAttester, measure_software
from blindai.server.model_store import ModelStore
from blindai.server.model_upload import Upload
from blindai.server.serve import create_app
from blindai.server.settings import Settings
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def adder_model() -> bytes:
    """Y = x + 1.5, over float [n]."""
    value = helper.make_tensor("w", TensorProto.FLOAT, [], [ADDED])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [value])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def counted() -> Iterator[Effects]:
    """Count every run, registration and deletion where it happens; the code beneath is the real one."""
    effects = Effects()
    infer, register, delete = WorkerPool.infer, Upload.register, ModelStore.delete

    async def counted_infer(self: WorkerPool, *args: Any, **options: Any) -> Any:
        effects.counts["run"] += 1
        return await infer(self, *args, **options)

    def counted_register(self: Upload) -> Any:
        model = register(self)
        effects.counts["upload"] += 1
        return model

    def counted_delete(self: ModelStore, *args: Any, **options: Any) -> Any:
        effects.counts["delete"] += 1
        return delete(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerPool, "infer", counted_infer)
        patch.setattr(Upload, "register", counted_register)
        patch.setattr(ModelStore, "delete", counted_delete)
        yield effects


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    opened = asyncio.new_event_loop()
    yield opened
    opened.run_until_complete(opened.shutdown_default_executor())
    opened.close()


@pytest.fixture(scope="module")
def running(
    loop: asyncio.AbstractEventLoop, counted: Effects, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A server with the model `adder`."""
    path = tmp_path_factory.mktemp("model") / f"{MODEL}.onnx"
    path.write_bytes(adder_model())
    directory = tmp_path_factory.mktemp("store")
    time = Time()
    world = World(
        app=create_app(
            Settings(simulation=True),
            attester=SimulationAttester(random=os.urandom, measurement=measure_software()),
            directory=directory,
            clock=time.server(),
        ),
        loop=loop,
        time=time,
        effects=counted,
        model_path=path,
        store_directory=directory,
    )
    world.victim().upload(MODEL)
    yield world
    loop.run_until_complete(world.app.sealed.service.pool.close())
    world.app.sealed.service.store.close()


@pytest.fixture
def world(running: World) -> World:
    """The server, with nothing counted yet."""
    running.effects.counts.clear()
    return running


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """A model of three frames and a bit; the server stores it, and loads it only when asked to."""
    path = tmp_path / "large.onnx"
    path.write_bytes(os.urandom(3 * (1 << 20) + 1000))
    return path
