"""Models of a repository while the server starts, and ensembles while it runs: real processes, no sockets."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import numpy_helper
from server.triton_models import PIPELINE, SCALER, add_model, add_pipeline, lookup, scaler, shifter

from blindai.attester.simulation import SimulationAttester
from blindai.errors import InvalidInputError, InvalidSettingsError, ModelNotFoundError, NotAuthorizedError
from blindai.oip.tensors import Tensor, tensor_from
from blindai.server.access import Principal, Role, open_principal
from blindai.server.ensemble import run_model, served_face
from blindai.server.serve import _prepare, create_app
from blindai.server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from blindai.server.app import App
    from blindai.server.dispatch import Service

SHARE = "public"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def application(repository: Path, **settings: Any) -> App:
    return create_app(
        Settings(simulation=True, model_repository=str(repository), **settings),
        attester=SimulationAttester(random=os.urandom, measurement=bytes(32)),
        directory=repository.parent / "data",
    )


@pytest.fixture(autouse=True)
def data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()


@asynccontextmanager
async def serving(repository: Path) -> AsyncIterator[Service]:
    app = application(repository)
    async with app.running():
        await app.prepare()
        assert app.readiness.is_ready
        yield app.sealed.service


async def refusal(repository: Path) -> str:
    app = application(repository)
    with pytest.raises(InvalidSettingsError) as refused:
        async with app.running():
            await app.prepare()
    assert app.sealed.service.pool.process_ids == ()
    return str(refused.value)


async def run(service: Service, name: str, *inputs: Tensor, outputs: tuple[str, ...] = ()) -> dict[str, Any]:
    models = service.models_of(open_principal(""))
    model = models.resolve(name)
    face = await served_face(model, SHARE, models=models, pool=service.pool)
    answer = await run_model(model, SHARE, inputs, outputs, face=face, models=models, pool=service.pool)
    return {tensor.name: tensor.data.tolist() for tensor in answer}


def floats(name: str, value: Any) -> Tensor:
    return tensor_from(np.array(value, dtype=np.float32), name=name)


async def test_models_are_loaded_before_the_server_listens(repository: Path) -> None:
    add_model(repository, "m", SCALER)
    async with serving(repository) as service:
        assert len(service.pool.process_ids) == 1
        assert await run(service, "m", floats("x", [[1, 2]])) == {"y": [[2, 4]]}


async def test_what_a_declared_model_is_served_as_is_worked_out_once_and_not_for_each_request(repository: Path) -> None:
    add_model(repository, "m", SCALER)
    async with serving(repository) as service:
        model = service.store.resolve("m")
        face = await service.pool.face(model, SHARE)
        assert face.inputs == model.config.inputs
        assert await service.pool.face(model, SHARE) is face


async def test_their_digests_are_in_the_attested_policy_and_their_configuration_in_its_digest(repository: Path) -> None:
    add_model(repository, "m", SCALER)
    before = application(repository)
    (repository / "m" / "config.pbtxt").write_text(SCALER + "instance_group { count: 2 }")
    after = application(repository)
    policies = [app.sealed.keys.epoch().keyset.runtime for app in (before, after)]
    assert [policy.models for policy in policies] == [(before.sealed.service.store.resolve("m").digest,)] * 2
    assert policies[0].configuration != policies[1].configuration
    for app in (before, after):
        await app.sealed.service.pool.close()


async def test_a_repository_is_never_read_again(repository: Path) -> None:
    folder = add_model(repository, "m", SCALER)
    app = application(repository)
    (folder / "1" / "model.onnx").write_bytes(b"changed under us")
    async with app.running():
        await app.prepare()
        assert await run(app.sealed.service, "m", floats("x", [[3, 4]])) == {"y": [[6, 8]]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SCALER.replace('"x"', '"q"'), "m/1: unexpected inference input 'q' (The model has x FP32"),
        (SCALER.replace('"y"', '"q"'), "m/1: unexpected inference output 'q' (The model has y FP32"),
        (SCALER.replace("FP32", "INT64"), "unexpected datatype INT64 for inference input 'x', expecting FP32"),
        (
            SCALER.replace("dims: [ 2 ]", "dims: [ 3 ]"),
            "the model expects 2 dimensions (shape [-1, 2]) but the model configuration specifies 2 dimensions (shape",
        ),
    ],
)
async def test_a_declaration_that_is_not_the_models_is_refused(repository: Path, config: str, words: str) -> None:
    add_model(repository, "m", config)
    assert words in await refusal(repository)


async def test_an_input_that_is_left_out_is_refused(repository: Path) -> None:
    add_model(repository, "pair", SCALER.replace('"x"', '"a"').replace('"y"', '"sum"'), {})
    add_pipeline(repository)
    (repository / "pair" / "1").symlink_to(repository / "join" / "1")
    assert "pair/1: the model's input 'b' is not in the model configuration" in await refusal(repository)


async def test_a_model_of_fixed_shape_is_no_batching_model(repository: Path) -> None:
    add_model(repository, "m", "max_batch_size: 4", {1: scaler(shape=(1, 2))})
    assert "for the model to support batching" in await refusal(repository)


async def test_all_that_do_not_load_are_told_at_once(repository: Path) -> None:
    for name in ("a", "b"):
        add_model(repository, name, models={})
        (repository / name / "1").mkdir()
        (repository / name / "1" / "model.onnx").write_bytes(b"no model")
    add_model(repository, "fine")
    told = await refusal(repository)
    assert "has 2 problems" in told
    assert "a/1: " in told
    assert "b/1: " in told


@pytest.mark.parametrize(("row", "fails"), [(9, False), (10, True)])
async def test_a_model_is_warm_before_the_server_listens(repository: Path, *, row: int, fails: bool) -> None:
    """The tenth row of a table of ten is not there: so the warm-up request really ran."""
    config = """
    input { name: "index" data_type: TYPE_INT64 dims: -1 }
    output { name: "value" data_type: TYPE_FP32 dims: -1 }
    model_warmup { name: "first" batch_size: 1 count: 2
      inputs { key: "index" value { data_type: TYPE_INT64 dims: 1 input_data_file: "row" } } }
    """
    add_model(repository, "m", config, {1: lookup()}, files={"warmup/row": row.to_bytes(8, "little")})
    if fails:
        assert "m/1: the model failed on this input" in await refusal(repository)
        return
    async with serving(repository) as service:
        assert len(service.pool.process_ids) == 1


async def test_a_narrow_declaration_holds_for_requests(repository: Path) -> None:
    add_model(repository, "m", SCALER, {1: scaler(shape=("rows", "columns"))})
    async with serving(repository) as service:
        assert await run(service, "m", floats("x", [[1, 2]])) == {"y": [[2, 4]]}
        with pytest.raises(InvalidInputError, match=r"Expected \[-1, 2\], got \[1, 3\]"):
            await run(service, "m", floats("x", [[1, 2, 3]]))
        with pytest.raises(InvalidInputError, match="batch-size must be <= 8 for 'm'"):
            await run(service, "m", floats("x", np.zeros((9, 2))))


async def test_outputs_that_are_not_declared_are_not_served(repository: Path) -> None:
    add_pipeline(repository)
    join = SCALER.replace('"x"', '"a"').replace('"y"', '"sum"')
    join = join.replace("output", 'input { name: "b", data_type: TYPE_FP32, dims: 2 }\noutput')
    (repository / "sums").mkdir()
    (repository / "sums" / "config.pbtxt").write_text(join)
    (repository / "sums" / "1").symlink_to(repository / "join" / "1")
    async with serving(repository) as service:
        pair = (floats("a", [[1, 2]]), floats("b", [[3, 4]]))
        assert await run(service, "sums", *pair) == {"sum": [[4, 6]]}
        with pytest.raises(InvalidInputError, match="unexpected inference output 'difference'"):
            await run(service, "sums", *pair, outputs=("difference",))


async def test_reshape_hides_the_models_own_shape(repository: Path) -> None:
    config = """
    max_batch_size: 4
    input { name: "index" data_type: TYPE_INT64 dims: 1 reshape { shape: [] } }
    output { name: "value" data_type: TYPE_FP32 dims: 1 reshape { shape: [] } }
    """
    add_model(repository, "m", config, {1: lookup()})
    async with serving(repository) as service:
        index = tensor_from(np.array([[3], [5]], dtype=np.int64), name="index")
        assert await run(service, "m", index) == {"value": [[9.0], [25.0]]}


SHIFTER = (
    SCALER
    + """
dynamic_batching { }
input [ { name: "b", data_type: TYPE_FP32, dims: [ 2 ], optional: true } ]
"""
)


@pytest.mark.parametrize("config", [SHIFTER, "max_batch_size: 8 dynamic_batching { }", None], ids=range(3))
async def test_requests_that_override_a_default_run_alone(repository: Path, config: str | None) -> None:
    add_model(repository, "m", config, {1: shifter()})
    async with serving(repository) as service:
        x, b = floats("x", [[1, 2]]), floats("b", [[5, 6]])
        for given, answer in (((x,), [[11, 12]]), ((x, b), [[6, 8]]), ((b, x), [[6, 8]])):
            statistics = service.pool.statistics(service.store.resolve("m"))
            before = statistics.execution_count
            answers = await asyncio.gather(*(run(service, "m", *given) for _ in range(8)))
            assert answers == [{"y": answer}] * 8
            assert (statistics.execution_count - before == 8) == (b in given)


async def test_an_optional_input_is_declared_as_such_or_not_served(repository: Path) -> None:
    add_model(repository, "m", SCALER, {1: shifter()})
    async with serving(repository) as service:
        assert await run(service, "m", floats("x", [[1, 2]])) == {"y": [[11, 12]]}
        with pytest.raises(InvalidInputError, match="unexpected inference input 'b'"):
            await run(service, "m", floats("x", [[1, 2]]), floats("b", [[5, 6]]))


async def test_only_what_has_a_default_is_optional(repository: Path) -> None:
    add_model(repository, "m", SCALER.replace("dims: [ 2 ] } ]", "dims: [ 2 ], optional: true } ]", 1))
    assert "input 'x' is not optional: the model has no default for it" in await refusal(repository)


async def test_an_ensemble_runs_its_models(repository: Path) -> None:
    add_pipeline(repository)
    async with serving(repository) as service:
        given = floats("IN", [[1, 2], [3, 4]])
        both = await run(service, "pipeline", given)
        assert both == {"OUT": [[5, 10], [15, 20]], "GAP": [[-1, -2], [-3, -4]]}
        assert await run(service, "pipeline", given, outputs=("GAP",)) == {"GAP": both["GAP"]}
        many = await asyncio.gather(*(run(service, "pipeline", floats("IN", [[i, 0]])) for i in range(20)))
        assert [answer["OUT"][0][0] for answer in many] == [5.0 * i for i in range(20)]


async def test_a_step_that_nobody_needs_does_not_run(repository: Path) -> None:
    """The second of two independent steps fails on any input; it matters only to whoever asks for its output."""
    add_model(repository, "double", SCALER)
    add_model(repository, "lookup", None, {1: lookup()})
    config = """
    platform: "ensemble"
    input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1, 2 ] }, { name: "AT" data_type: TYPE_INT64 dims: -1 } ]
    output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1, 2 ] }, { name: "SEEN" data_type: TYPE_FP32 dims: -1 } ]
    ensemble_scheduling { step [
      { model_name: "double" model_version: 1
        input_map { key: "x" value: "IN" } output_map { key: "y" value: "OUT" } },
      { model_name: "lookup" model_version: 1
        input_map { key: "index" value: "AT" } output_map { key: "value" value: "SEEN" } }
    ] }
    """
    add_model(repository, "two", config, {})
    (repository / "two" / "1").mkdir()
    async with serving(repository) as service:
        beyond = tensor_from(np.array([99], dtype=np.int64), name="AT")
        given = floats("IN", [[1, 1]])
        assert await run(service, "two", given, beyond, outputs=("OUT",)) == {"OUT": [[2, 2]]}
        with pytest.raises(Exception, match="the model failed on this input"):
            await run(service, "two", given, beyond)


async def test_an_ensemble_may_be_a_step_of_another(repository: Path) -> None:
    add_pipeline(repository)
    outer = """
    platform: "ensemble"
    max_batch_size: 8
    input { name: "A" data_type: TYPE_FP32 dims: 2 }
    output { name: "B" data_type: TYPE_FP32 dims: 2 }
    ensemble_scheduling { step [
      { model_name: "pipeline" model_version: -1
        input_map { key: "IN" value: "A" } output_map { key: "OUT" value: "mid" } },
      { model_name: "double" model_version: -1
        input_map { key: "x" value: "mid" } output_map { key: "y" value: "B" } }
    ] }
    """
    add_model(repository, "again", outer, {})
    (repository / "again" / "1").mkdir()
    async with serving(repository) as service:
        assert await run(service, "again", floats("A", [[1, 2]])) == {"B": [[10, 20]]}


async def test_an_ensemble_checks_its_requests(repository: Path) -> None:
    add_pipeline(repository)
    async with serving(repository) as service:
        for wrong, words in (
            ((floats("IN", [[1, 2, 3]]),), r"Expected \[-1, 2\], got \[1, 3\]"),
            ((), r"missing required input\(s\) \['IN'\]"),
            ((floats("doubled", [[1, 2]]),), "unexpected inference input 'doubled'"),
        ):
            with pytest.raises(InvalidInputError, match=words):
                await run(service, "pipeline", *wrong)
        with pytest.raises(InvalidInputError, match="unexpected inference output 'doubled'"):
            await run(service, "pipeline", floats("IN", [[1, 2]]), outputs=("doubled",))


async def test_a_tenant_runs_an_ensemble_and_its_models_in_processes_of_its_own(repository: Path) -> None:
    add_pipeline(repository)
    async with serving(repository) as service:
        before = set(service.pool.process_ids)
        acme = Principal(tenant="acme", roles=frozenset(Role), share="acme")
        models = service.models_of(acme)
        model = models.resolve("pipeline")
        face = await served_face(model, acme.share, models=models, pool=service.pool)
        given = (floats("IN", [[1, 2]]),)
        answer = await run_model(model, acme.share, given, ("OUT",), face=face, models=models, pool=service.pool)
        assert answer[0].data.tolist() == [[5, 10]]
        assert len(set(service.pool.process_ids) - before) == len(before) == 3
        with pytest.raises(NotAuthorizedError):
            models.delete("pipeline")


async def test_a_server_that_is_to_end_while_its_models_load_does_not_wait_for_them(repository: Path) -> None:
    add_pipeline(repository)
    app, stop = application(repository), asyncio.Event()
    async with app.running():
        preparing = asyncio.create_task(_prepare(app, stop))
        while app.readiness.is_ready:  # noqa: ASYNC110  # one turn of the loop
            await asyncio.sleep(0)
        stop.set()
        await preparing
        assert app.readiness.is_ready
    assert app.sealed.service.pool.process_ids == ()


async def test_an_ensemble_of_several_precisions_is_mixed(repository: Path) -> None:
    add_pipeline(repository)
    narrow = scaler(3.0)
    weight = numpy_helper.from_array(np.ones((2, 2), np.float16), "unused")
    narrow.graph.initializer.append(weight)
    add_model(repository, "narrow", SCALER, {1: narrow})
    changed = PIPELINE.replace('"triple"', '"narrow"')
    add_model(repository, "other", changed, {})
    (repository / "other" / "1").mkdir()
    async with serving(repository) as service:
        models = service.models_of(open_principal(""))
        found = [
            (await served_face(models.resolve(name), SHARE, models=models, pool=service.pool)).precision
            for name in ("narrow", "pipeline", "other")
        ]
        assert found == ["fp16", "fp32", "mixed"]


async def test_an_ensemble_never_takes_another_model_of_the_same_name(repository: Path) -> None:
    add_pipeline(repository)
    async with serving(repository) as service:
        service.store.delete("double")
        with pytest.raises(ModelNotFoundError):
            await run(service, "pipeline", floats("IN", [[1, 2]]))


async def test_an_ensembles_metadata_is_what_it_declares(repository: Path) -> None:
    add_pipeline(repository)
    async with serving(repository) as service:
        models = service.models_of(open_principal(""))
        face = await served_face(models.resolve("pipeline"), SHARE, models=models, pool=service.pool)
        assert face.precision == "fp32"
        assert [(spec.name, spec.shape) for spec in (*face.inputs, *face.outputs)] == [
            ("IN", (-1, 2)),
            ("OUT", (-1, 2)),
            ("GAP", (-1, 2)),
        ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('key: "b", value: "tripled"', 'key: "c", value: "tripled"', "step 0 (join): input 'c' does not exist"),
        (' input_map { key: "b", value: "tripled" },', "", "step 0 (join): input 'b' is not mapped"),
        ('key: "difference"', 'key: "quotient"', "step 0 (join): output 'quotient' does not exist in the model"),
        (
            '"IN", data_type: TYPE_FP32, dims: [ 2 ]',
            '"IN", data_type: TYPE_FP64, dims: [ 2 ]',
            "inconsistent data type of ensemble tensor 'IN': FP32 and FP64",
        ),
        (
            '"OUT", data_type: TYPE_FP32, dims: [ 2 ]',
            '"OUT", data_type: TYPE_FP32, dims: [ 3 ]',
            "inconsistent shape of ensemble tensor 'OUT': [-1, 2] and [-1, 3]",
        ),
    ],
)
async def test_maps_that_do_not_fit_the_models_are_refused(repository: Path, old: str, new: str, words: str) -> None:
    assert old in PIPELINE
    add_pipeline(repository, PIPELINE.replace(old, new, 1))
    assert words in await refusal(repository)
