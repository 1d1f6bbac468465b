"""A model's author attacks: with memory, with time, with functions, with other files; others must not notice.

Each attack runs in real processes, beside a model of another tenant that goes on answering.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from blindai.bundle import UploadHeader
from blindai.errors import DeadlineExceededError, InternalError, InvalidModelError, ModelNotReadyError
from blindai.oip.tensors import Datatype, Tensor
from blindai.server.model_store import ModelStore
from blindai.server.runner_start import PoolOptions
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from blindai.server.model_store import StoredModel

pytestmark = pytest.mark.network

DEADLINE_S = 1.0
SOON_S = 60.0
REQUESTS = 32
MIB = 1024 * 1024
HUNDRED_GB = 100 * 10**9
OPSET = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
# Deaths, ends and refusals, all with a cause that names no user's data.
FAILURES = (InternalError, ModelNotReadyError, DeadlineExceededError)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    opened = ModelStore(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
async def pool(store: ModelStore) -> AsyncIterator[WorkerPool]:
    opened = WorkerPool(store, PoolOptions(run_timeout_s=DEADLINE_S))
    yield opened
    await opened.close()


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    x: tuple[int, list[str | int]],
    y: tuple[int, list[str | int]],
    *,
    initialisers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    infos = [helper.make_tensor_value_info(name, *kind) for name, kind in (("x", x), ("y", y))]
    graph = helper.make_graph(list(nodes), "g", infos[:1], infos[1:], list(initialisers))
    model = helper.make_model(graph, opset_imports=OPSET, ir_version=9, functions=list(functions))
    return bytes(model.SerializeToString())


def stored(store: ModelStore, name: str, model: bytes, **others: bytes) -> StoredModel:
    files = {"m.onnx": model, **{path.replace("_", "."): data for path, data in others.items()}}
    sizes = tuple((path, len(data)) for path, data in files.items())
    upload = store.begin_upload(name, UploadHeader(version=None, files=sizes, default_shape=None, load=False))
    for data in files.values():
        upload.write(data)
    upload.complete()
    return upload.register()


def numbers(*values: int) -> tuple[Tensor, ...]:
    return (Tensor(name="x", datatype=Datatype.INT64, shape=(len(values),), data=np.array(values, np.int64)),)


def floats(*values: float) -> tuple[Tensor, ...]:
    return (Tensor(name="x", datatype=Datatype.FP32, shape=(len(values),), data=np.array(values, np.float32)),)


class Neighbour:
    """Another tenant's model, and how many of its answers were right."""

    def __init__(self, store: ModelStore, pool: WorkerPool) -> None:
        one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
        kind: tuple[int, list[str | int]] = (TensorProto.FLOAT, ["n"])
        model = graph_model([helper.make_node("Add", ["x", "one"], ["y"])], kind, kind, initialisers=[one])
        self.model = stored(store, "neighbour", model)
        self.right = 0
        self._pool = pool

    async def ask(self, count: int = REQUESTS) -> None:
        """So many requests at once; all are right or the test ends."""
        answers = await asyncio.gather(
            *(self._pool.infer(self.model, "neighbour", floats(index)) for index in range(count))
        )
        assert [float(output.data[0]) for (output,) in answers] == [index + 1.0 for index in range(count)]
        self.right += count


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Where the attacker and the neighbour live."""

    store: ModelStore
    pool: WorkerPool
    neighbour: Neighbour


@pytest.fixture
async def house(store: ModelStore, pool: WorkerPool) -> House:
    made = Neighbour(store, pool)
    await made.ask()
    return House(store=store, pool=pool, neighbour=made)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def attacked(
    house: House, model: StoredModel, inputs: tuple[Tensor, ...]
) -> list[BaseException | tuple[Tensor, ...]]:
    """What four requests to the attacker's model come to, while the neighbour asks 32 times; nothing hangs."""
    async with asyncio.timeout(SOON_S):
        asking = asyncio.create_task(house.neighbour.ask())
        answers = await asyncio.gather(
            *(house.pool.infer(model, "attacker", inputs) for _ in range(4)), return_exceptions=True
        )
        await asking
        await house.neighbour.ask()
    return answers


def zeros_model() -> bytes:
    """`x` gives the shape of zeros: the file has some hundred bytes, and asks for any amount of memory."""
    nodes = [
        helper.make_node("ConstantOfShape", ["x"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["x", "whole"], ["y"]),
    ]
    return graph_model(nodes, (TensorProto.INT64, ["n"]), (TensorProto.INT64, ["n"]))


@pytest.mark.parametrize("shape", [(HUNDRED_GB // 4,), (2**40,), (2**31, 2**31), (2**62, 4)])
async def test_a_memory_bomb_fails_alone(shape: tuple[int, ...], house: House, tell: Callable[[str], None]) -> None:
    model = stored(house.store, "bomb", zeros_model())
    (output,) = await house.pool.infer(model, "attacker", numbers(3))
    assert output.data.tolist() == [3]
    before = resident_bytes()
    answers = await attacked(house, model, numbers(*shape))
    assert {type(answer) for answer in answers} <= set(FAILURES)
    grown = resident_bytes() - before
    assert grown < 64 * MIB
    (output,) = await house.pool.infer(model, "attacker", numbers(3))
    assert output.data.tolist() == [3]
    tell(f"{len(answers)} bombs failed, the neighbour had {house.neighbour.right} right answers, "
         f"the server grew by {grown / MIB:.1f} MiB")  # fmt: skip


async def test_a_bomb_that_goes_off_while_it_loads_fails_alone(house: House) -> None:
    """Constant folding computes what does not depend on an input, before any request."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [HUNDRED_GB // 4])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    kind: tuple[int, list[str | int]] = (TensorProto.FLOAT, ["n"])
    model = stored(house.store, "bomb", graph_model(nodes, kind, kind, initialisers=[shape]))
    answers = await attacked(house, model, floats(1))
    assert {type(answer) for answer in answers} <= {*FAILURES, InvalidModelError}
    assert house.neighbour.right == 3 * REQUESTS


async def test_a_small_file_cannot_declare_a_large_tensor(store: ModelStore, pool: WorkerPool) -> None:
    lie = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HUNDRED_GB // 4])
    kind: tuple[int, list[str | int]] = (TensorProto.FLOAT, ["n"])
    model = stored(
        store, "lie", graph_model([helper.make_node("Add", ["x", "w"], ["y"])], kind, kind, initialisers=[lie])
    )
    with pytest.raises(InvalidModelError, match="not what its shape says"):
        await pool.load(model, "attacker")


def endless_loop() -> bytes:
    """Goes round x times."""
    scalars = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("i", "before", "after")]
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    one = helper.make_tensor("one", TensorProto.INT64, [], [1])
    steps = [helper.make_node("Add", ["before", "one"], ["after"]), helper.make_node("Identity", ["go"], ["on"])]
    body = helper.make_graph(steps, "body", [scalars[0], flags[0], scalars[1]], [flags[1], scalars[2]], [one])
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
    ]
    nodes = [
        helper.make_node("Squeeze", ["x", "axis"], ["times"]),
        helper.make_node("Loop", ["times", "true", "zero"], ["sum"], body=body),
        helper.make_node("Unsqueeze", ["sum", "axis"], ["y"]),
    ]
    return graph_model(nodes, (TensorProto.INT64, [1]), (TensorProto.INT64, [1]), initialisers=constants)


def one_long_kernel() -> bytes:
    """One product of two x by x matrices: ONNX Runtime looks at a run's deadline between kernels only."""
    kind: tuple[int, list[str | int]] = (TensorProto.INT64, [1])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["ones"], value=one),
        helper.make_node("MatMul", ["ones", "ones"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "shape_of_y"], ["y"]),
    ]
    return graph_model(nodes, kind, kind, initialisers=[helper.make_tensor("shape_of_y", TensorProto.INT64, [1], [1])])


async def until_started(house: House, model: StoredModel) -> list[int]:
    """A process that died again and again starts after a pause; until then its model is not ready."""
    async with asyncio.timeout(30):
        while True:
            try:
                (output,) = await house.pool.infer(model, "attacker", numbers(5))
            except ModelNotReadyError:
                await asyncio.sleep(0.1)
            else:
                return list(output.data.tolist())


@pytest.mark.parametrize(
    ("make", "endless"), [(endless_loop, 2**62), (one_long_kernel, 12_000)], ids=["loop", "kernel"]
)
async def test_a_run_without_end_ends_at_the_deadline_and_others_go_on(
    make: Callable[[], bytes],
    endless: int,
    house: House,
    tell: Callable[[str], None],
) -> None:
    model = stored(house.store, "endless", make())
    (output,) = await house.pool.infer(model, "attacker", numbers(5))
    assert output.data.tolist() == [5]
    answers = await attacked(house, model, numbers(endless))
    assert {type(answer) for answer in answers} <= {DeadlineExceededError, ModelNotReadyError}
    assert any(isinstance(answer, DeadlineExceededError) for answer in answers)
    assert await until_started(house, model) == [5]
    ended = sum(isinstance(answer, DeadlineExceededError) for answer in answers)
    tell(
        f"{ended} of {len(answers)} runs met the deadline themselves, the neighbour had {house.neighbour.right} answers"
    )


def calls(name: str, callee: str, times: int) -> onnx.FunctionProto:
    values = ["x", *(f"t{index}" for index in range(1, times)), "y"]
    nodes = [helper.make_node(callee, [values[i]], [values[i + 1]], domain="d") for i in range(times)]
    return helper.make_function("d", name, ["x"], ["y"], nodes, OPSET)


LEAF = helper.make_function("d", "f30", ["x"], ["y"], [helper.make_node("Exp", ["x"], ["y"])], OPSET)


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ([calls("f0", "f0", 1)], "calls itself"),
        ([calls("f0", "f1", 1), calls("f1", "f0", 2)], "calls itself"),
        ([*(calls(f"f{index}", f"f{index + 1}", 2) for index in range(30)), LEAF], "more than 200000 nodes"),
        ([*(calls(f"f{index}", f"f{index + 1}", 1) for index in range(4000))], "deeper than 32"),
    ],
    ids=["direct", "mutual", "doubling", "deep"],
)
async def test_functions_that_never_end_are_refused_before_onnx_runtime_unfolds_them(
    functions: list[onnx.FunctionProto], words: str, house: House
) -> None:
    kind: tuple[int, list[str | int]] = (TensorProto.FLOAT, ["n"])
    call = helper.make_node("f0", ["x"], ["y"], domain="d")
    model = stored(house.store, "functions", graph_model([call], kind, kind, functions=functions))
    async with asyncio.timeout(SOON_S):
        with pytest.raises(InvalidModelError, match=words):
            await house.pool.load(model, "attacker")
        await house.neighbour.ask()


def outside(location: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.UINT8, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, entry in (("location", location), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=entry)
    return tensor


def reads_by_initialiser(location: str) -> bytes:
    kind: tuple[int, list[str | int]] = (TensorProto.UINT8, ["n"])
    return graph_model([helper.make_node("Max", ["x", "w"], ["y"])], kind, kind, initialisers=[outside(location)])


def reads_by_constant(location: str) -> bytes:
    kind: tuple[int, list[str | int]] = (TensorProto.UINT8, ["n"])
    constant = helper.make_node("Constant", [], ["w"], value=outside(location))
    return graph_model([constant, helper.make_node("Max", ["x", "w"], ["y"])], kind, kind)


def reads_by_function(location: str) -> bytes:
    kind: tuple[int, list[str | int]] = (TensorProto.UINT8, ["n"])
    nodes = [
        helper.make_node("Constant", [], ["w"], value=outside(location)),
        helper.make_node("Max", ["x", "w"], ["y"]),
    ]
    body = helper.make_function("d", "f0", ["x"], ["y"], nodes, OPSET)
    return graph_model([helper.make_node("f0", ["x"], ["y"], domain="d")], kind, kind, functions=[body])


def reads_by_subgraph(location: str) -> bytes:
    kind: tuple[int, list[str | int]] = (TensorProto.UINT8, ["n"])
    value = helper.make_tensor_value_info("w", TensorProto.UINT8, [4])
    branch = helper.make_graph([], "branch", [], [value], [outside(location)])
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("If", ["true"], ["read"], then_branch=branch, else_branch=branch),
        helper.make_node("Max", ["x", "read"], ["y"]),
    ]
    return graph_model(nodes, kind, kind, initialisers=[true])


@pytest.mark.parametrize("location", ["/etc/passwd", "../../../../../../etc/passwd", "*/_ORT_MEM_ADDR_/*", "m.onnx"])
@pytest.mark.parametrize("make", [reads_by_initialiser, reads_by_constant, reads_by_function, reads_by_subgraph])
async def test_a_model_reads_no_file_of_the_machine(
    make: Callable[[str], bytes], location: str, store: ModelStore, pool: WorkerPool
) -> None:
    model = stored(store, "reader", make(location))
    with pytest.raises(InvalidModelError, match="external data"):
        await pool.load(model, "attacker")


async def test_two_tenants_never_meet_in_one_process(
    store: ModelStore, pool: WorkerPool, tell: Callable[[str], None]
) -> None:
    """What a process leaves in its memory, it leaves to the same tenant only."""
    kind: tuple[int, list[str | int]] = (TensorProto.FLOAT, ["n"])
    model = stored(store, "shared", graph_model([helper.make_node("Exp", ["x"], ["y"])], kind, kind))
    await pool.infer(model, "one", floats(0))
    (first,) = pool.process_ids
    await pool.infer(model, "two", floats(0))
    assert len(set(pool.process_ids)) == 2
    (second,) = set(pool.process_ids) - {first}
    for _ in range(4):
        await asyncio.gather(*(pool.infer(model, share, floats(0)) for share in ("one", "two")))
    assert set(pool.process_ids) == {first, second}
    tell("1 model, 2 tenants, 2 processes")


async def test_a_model_out_of_memory_costs_the_other_models_nothing(house: House, tell: Callable[[str], None]) -> None:
    """Each request takes more than the last, up to and past what a process may have."""
    model = stored(house.store, "hungry", zeros_model())
    sizes = [10 * MIB, 10**10, HUNDRED_GB, 2**50]
    async with asyncio.timeout(SOON_S):
        first = await house.pool.infer(model, "attacker", numbers(sizes[0]))
        assert first[0].data.tolist() == [sizes[0]]
        asking = asyncio.create_task(house.neighbour.ask())
        answers = await asyncio.gather(
            *(house.pool.infer(model, "attacker", numbers(size)) for size in sizes[1:]), return_exceptions=True
        )
        await asking
    assert {type(answer) for answer in answers} <= set(FAILURES)
    assert house.neighbour.right == 2 * REQUESTS
    tell(f"{len(answers)} of {len(answers)} requests out of memory, {REQUESTS} of {REQUESTS} of the neighbour's right")
