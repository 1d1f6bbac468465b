"""What a model repository becomes, and every reason for which one is not served, told all at once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from server.triton_models import PIPELINE, SCALER, add_model, add_pipeline, lookup, scaler

from blindai.errors import InvalidSettingsError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import TensorSpec
from blindai.server.model_store import ModelStore
from blindai.server.triton_repository import StartModels, load_repository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    made = ModelStore(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def load(repository: Path, store: ModelStore, **limits: int) -> StartModels:
    given = {"max_model_bytes": 1 << 30, "max_request_bytes": 1 << 20} | limits
    return load_repository(str(repository), store, **given)


def refusal(repository: Path, store: ModelStore, **limits: int) -> str:
    with pytest.raises(InvalidSettingsError) as refused:
        load(repository, store, **limits)
    assert store.models() == ()
    return str(refused.value)


def warming(tensor: str) -> str:
    """A warm-up request of one input."""
    return f"model_warmup {{ batch_size: 1 inputs {{ key: {tensor} }} }}"


def configured(repository: Path, store: ModelStore, more: str, **given: Any) -> Any:
    """How a scaler is served whose config.pbtxt goes on with `more`."""
    add_model(repository, "m", SCALER + more, **given)
    load(repository, store)
    return store.resolve("m").config


def test_a_model_without_a_configuration_is_served_as_it_is(repository: Path, store: ModelStore) -> None:
    add_model(repository, "plain")
    (found,) = load(repository, store).models
    assert (found.name, found.version, found.config.inputs, found.config.max_batch_size) == ("plain", "1", (), 0)
    content = (repository / "plain" / "1" / "model.onnx").read_bytes()
    assert [(f.path, f.size, f.sha256) for f in found.manifest.files] == [
        ("model.onnx", len(content), hashlib.sha256(content).digest())
    ]
    assert b"".join(piece for _, pieces in store.open_bundle(found) for piece in pieces) == content


def test_declared_tensors_have_the_batchs_axis_before_their_dims(repository: Path, store: ModelStore) -> None:
    config = configured(repository, store, "")
    assert config.inputs == (TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 2)),)
    assert config.outputs == (TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1, 2)),)
    assert (config.max_batch_size, config.batching) == (8, "off")


@pytest.mark.parametrize("kind", ["BOOL", "UINT8", "UINT64", "INT16", "FP16", "FP64", "BF16", "STRING"])
def test_every_datatype_has_its_name(repository: Path, store: ModelStore, kind: str) -> None:
    add_model(repository, "m", SCALER.replace("TYPE_FP32", f"TYPE_{kind}"))
    load(repository, store)
    assert store.resolve("m").config.inputs[0].datatype == ("BYTES" if kind == "STRING" else kind)


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", ["10"]),
        ("version_policy { latest { num_versions: 2 } }", ["3", "10"]),
        ("version_policy { all {} }", ["1", "3", "10"]),
        ("version_policy { specific { versions: [ 3, 1 ] } }", ["1", "3"]),
    ],
)
def test_the_version_policy_chooses_and_the_highest_is_the_latest(
    repository: Path, store: ModelStore, policy: str, versions: list[str]
) -> None:
    add_model(repository, "m", SCALER + policy, {number: scaler(number) for number in (1, 3, 10)})
    (repository / "m" / "02").mkdir()
    (repository / "m" / "old").mkdir()
    found = load(repository, store)
    assert [model.version for model in found.models] == versions
    assert store.resolve("m").version == versions[-1]


def test_scheduling_instances_threads_and_optimisation(repository: Path, store: ModelStore) -> None:
    config = configured(
        repository,
        store,
        """
        instance_group [ { count: 2, kind: KIND_CPU }, { kind: KIND_AUTO } ]
        dynamic_batching {
          preferred_batch_size: [ 4, 8 ]  max_queue_delay_microseconds: 100
          priority_levels: 3  default_priority_level: 2
          default_queue_policy { max_queue_size: 7 default_timeout_microseconds: 5000 allow_timeout_override: true }
        }
        optimization { graph { level: 1 } }
        parameters { key: "intra_op_thread_count" value { string_value: "3" } }
        parameters { key: "execution_mode" value { string_value: "0" } }
        parameters { key: "blindai_batching" value { string_value: "on" } }
        """,
    )
    assert (config.instances, config.intra_op_threads, config.batching) == (3, 3, "on")
    assert (config.preferred_batch_sizes, config.max_queue_delay_us) == ((4, 8), 100)
    queue = config.queue
    assert (queue.max_queue_size, queue.default_timeout_us, queue.allow_timeout_override) == (7, 5000, True)
    assert (queue.priority_levels, queue.default_priority_level) == (3, 2)
    assert store.resolve("m").manifest.session.graph_optimization == "extended"


def test_a_queue_without_a_bound_keeps_ours(repository: Path, store: ModelStore) -> None:
    config = configured(repository, store, "dynamic_batching { default_queue_policy { } }")
    assert (config.queue.max_queue_size, config.queue.allow_timeout_override) == (1024, False)


def test_a_model_that_declares_no_batches_is_never_batched(repository: Path, store: ModelStore) -> None:
    add_model(repository, "m", SCALER.replace("max_batch_size: 8", "").replace("dims: [ 2 ]", "dims: [ -1, 2 ]"))
    load(repository, store)
    config = store.resolve("m").config
    assert (config.batching, config.inputs[0].shape) == ("off", (-1, 2))


def test_labels_are_read_by_output(repository: Path, store: ModelStore) -> None:
    config = configured(
        repository,
        store,
        'output [ { name: "z", data_type: TYPE_FP32, dims: [ 2 ], label_filename: "labels.txt" } ]',
        files={"labels.txt": "healthy\nill, sérieusement\n".encode()},
    )
    assert config.labels == (("z", ("healthy", "ill, sérieusement")),)


def test_warm_up_requests_are_made_row_by_row(repository: Path, store: ModelStore) -> None:
    row = np.array([1.5, -2.0], dtype="<f4")
    config = configured(
        repository,
        store,
        """
        model_warmup [
          { name: "zeros" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 zero_data: true } } },
          { name: "drawn" batch_size: 3 inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 random_data: true } } },
          { name: "file" batch_size: 2 count: 5
            inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 input_data_file: "row" } } }
        ]
        """,
        files={"warmup/row": row.tobytes()},
    )
    ((zeros,), _), ((drawn,), _), ((read,), count) = config.warmup
    assert zeros.data.tolist() == [[0.0, 0.0]]
    assert drawn.shape == (3, 2)
    assert 0 <= drawn.data.min() <= drawn.data.max() < 1
    assert (read.data.tolist(), count) == ([row.tolist()] * 2, 5)


def test_external_data_beside_the_model_is_part_of_the_bundle(repository: Path, store: ModelStore) -> None:
    folder = add_model(repository, "m", models={}) / "1"
    folder.mkdir()
    onnx.save_model(scaler(), folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "other.onnx").write_bytes(b"second")
    (model,) = load(repository, store).models
    assert [file.path for file in model.manifest.files] == ["model.onnx", "w.bin"]


def test_a_folder_may_stand_for_the_model(repository: Path, store: ModelStore) -> None:
    folder = add_model(repository, "m", SCALER + 'default_model_filename: "net.onnx"', {}) / "1" / "net.onnx"
    folder.mkdir(parents=True)
    onnx.save_model(scaler(), folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (model,) = load(repository, store).models
    assert [file.path for file in model.manifest.files] == ["model.onnx", "w.bin"]


def test_what_has_no_effect_is_named_once(
    repository: Path, store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    more = """
    instance_group [ { kind: KIND_GPU gpus: [ 0 ] }, { kind: KIND_GPU gpus: [ 1 ] } ]
    dynamic_batching { preserve_ordering: true }
    parameters { key: "gpu_mem_limit" value { string_value: "1" } }
    metric_tags { key: "a" value: "b" }
    response_cache { enable: false }
    """
    add_model(repository, "m", SCALER + more, files={"README": b"", "configs/h100.pbtxt": b""})
    (repository / "notes.txt").write_text("")
    with caplog.at_level(logging.WARNING):
        load(repository, store)
    ignored = sorted(m.partition("ignored: ")[2] for m in caplog.messages if "ignored" in m)
    assert ignored == [
        "a file beside the models' folders",
        "a file that the configuration does not name",
        "a folder that is no version (a number that starts with no 0)",
        "dynamic_batching.preserve_ordering",
        "instance_group.gpus",
        "metric_tags",
        "parameters 'gpu_mem_limit'",
    ]
    assert sum("KIND_GPU: what computes" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            "frobnicate: 1",
            'm/config.pbtxt: line 6: Message type "inference.ModelConfig" has no field named "frobnicate"',
        ),
        ("max_batch_size: ", "m/config.pbtxt: line "),
        ('name: "other"', "name: the model is called 'm'"),
        ('backend: "python"', "backend 'python'"),
        ('platform: "tensorrt_plan"', "platform 'tensorrt_plan'"),
        ("max_batch_size: -1", "max_batch_size is 0 or more"),
        ('model_operations { op_library_filename: "a.so" }', "model_operations: operator libraries"),
        ('model_repository_agents { agents { name: "checksum" } }', "model_repository_agents: "),
        ("response_cache { enable: true }", "response_cache.enable: "),
        ("sequence_batching { }", "sequence_batching: "),
        ("model_transaction_policy { decoupled: true }", "model_transaction_policy.decoupled: "),
        ('runtime: "own.so"', "runtime: "),
        ('batch_input { target_name: "n" }', "batch_input: "),
        ('batch_output { target_name: "n" }', "batch_output: "),
        ('input { name: "s" data_type: TYPE_INT32 dims: 1 is_shape_tensor: true }', "input.is_shape_tensor: "),
        ("input { data_type: TYPE_INT32 dims: 1 }", "its name is missing"),
        ('input { name: "s" dims: 1 }', "data_type is missing"),
        ('input { name: "s" data_type: TYPE_INT32 dims: 0 }', "dims are sizes of 1 or more"),
        ('input { name: "x" data_type: TYPE_FP32 dims: 2 }', "input: a name stands there twice"),
        ('output { name: "z" data_type: TYPE_FP32 dims: 2 reshape { shape: 3 } }', "another number of elements"),
        ('output { name: "z" data_type: TYPE_FP32 dims: 2 label_filename: "../l" }', "m/../l: not a file name"),
        ('output { name: "z" data_type: TYPE_FP32 dims: 2 label_filename: "l" }', "m/l: not there"),
        ('default_model_filename: "../../m.onnx"', "default_model_filename: a file name without folders"),
        ('default_model_filename: "b.onnx"', "m/1/b.onnx: not there"),
        ("version_policy { specific { versions: [ 1, 4 ] } }", "version 4 is named, and its folder is not there"),
        ("version_policy { specific { } }", "specific names versions from 1 on"),
        ("instance_group { count: -1 }", "count is 1 or more"),
        ("instance_group { count: 65 }", "at most 64 instances"),
        ("dynamic_batching { preferred_batch_size: 9 }", "preferred_batch_size is from 1 to max_batch_size"),
        ("dynamic_batching { default_queue_policy { timeout_action: DELAY } }", "timeout_action: "),
        ("dynamic_batching { priority_levels: 2 }", "default_priority_level is from 1 to priority_levels"),
        ("optimization { graph { level: 3 } }", "level is -1"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "-1" } }', "a whole number"),
        ('parameters { key: "blindai_batching" value { string_value: "yes" } }', "blindai_batching is auto, on, off"),
        ("model_warmup { }", "batch_size is from 1 to 8"),
        ('model_warmup { batch_size: 1 inputs { key: "x" value { dims: 2 } } }', "data_type, and dims"),
        (
            'model_warmup { batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 } } }',
            "zero_data, random_data or input_data_file",
        ),
        (
            'model_warmup { batch_size: 1 inputs { key: "q" value { data_type: TYPE_FP32 dims: 2 zero_data: true } } }',
            "unexpected inference input 'q'",
        ),
        (
            warming('"x" value { data_type: TYPE_FP32 dims: 999999 zero_data: true }'),
            "more than 1048576 bytes",
        ),
        (
            warming('"x" value { data_type: TYPE_FP32 dims: 2 input_data_file: "../config.pbtxt" }'),
            "m/warmup/../config.pbtxt: not a file name",
        ),
        (
            warming('"x" value { data_type: TYPE_FP32 dims: 2 input_data_file: "short" }'),
            "Expected 8, got 3",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(repository: Path, store: ModelStore, more: str, words: str) -> None:
    config = SCALER.replace("max_batch_size: 8\n", "\n") if "max_batch_size:" in more else SCALER
    config = config.replace('backend: "onnxruntime"', "") if "backend:" in more else config
    add_model(repository, "m", config + more, files={"warmup/short": b"123"})
    assert words in refusal(repository, store)


def test_all_problems_of_all_models_are_told_at_once(repository: Path, store: ModelStore) -> None:
    add_model(repository, "fine", SCALER)
    add_model(repository, "a", SCALER + "sequence_batching {} runtime: 'x'")
    add_model(repository, "b", "nonsense")
    add_model(repository, "c", models={})
    add_model(repository, "d e")
    told = refusal(repository, store)
    assert "has 5 problems" in told
    for words in (
        "a/config.pbtxt: sequence_batching",
        "a/config.pbtxt: runtime",
        "b/config.pbtxt: line 1",
        "c: has no",
        "d e:",
    ):
        assert words in told


def test_a_link_that_leaves_the_repository_is_refused(repository: Path, store: ModelStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x08\x09")
    add_model(repository, "m", models={})
    (repository / "m" / "1").mkdir()
    (repository / "m" / "1" / "model.onnx").symlink_to(secret)
    (repository / "n").symlink_to(tmp_path)
    told = refusal(repository, store)
    assert "m/1/model.onnx: a symbolic link that leaves the repository" in told
    assert "n: a symbolic link that leaves the repository" in told


def test_a_link_inside_the_repository_is_followed(repository: Path, store: ModelStore) -> None:
    add_model(repository, "m")
    add_model(repository, "n", models={})
    (repository / "n" / "1").symlink_to(repository / "m" / "1")
    assert len({model.digest for model in load(repository, store).models}) == 1


def test_what_is_no_regular_file_is_refused(repository: Path, store: ModelStore) -> None:
    folder = add_model(repository, "m", models={}) / "1"
    folder.mkdir()
    os.mkfifo(folder / "model.onnx")
    assert "m/1/model.onnx: not a file" in refusal(repository, store)


def test_a_model_beyond_the_limit_is_refused(repository: Path, store: ModelStore) -> None:
    add_model(repository, "m")
    assert "m/1: a model has at most 10 bytes" in refusal(repository, store, max_model_bytes=10)


def test_folders_beside_a_models_files_and_strange_names_are_refused(repository: Path, store: ModelStore) -> None:
    folder = add_model(repository, "m") / "1"
    (folder / "weights").mkdir()
    (folder / "a b").write_bytes(b"")
    told = refusal(repository, store)
    assert "m/1/weights: a folder inside a version's folder" in told
    assert "m/1/a b: not a file name" in told


def test_more_versions_than_a_keyset_can_list_are_refused(repository: Path, store: ModelStore) -> None:
    many = {number: scaler() for number in range(1, 66)}
    add_model(repository, "m", SCALER + "version_policy { all {} }", many)
    assert "at most 64 versions of models are served" in refusal(repository, store)


def test_a_repository_that_is_not_there(tmp_path: Path, store: ModelStore) -> None:
    assert "cannot read the model repository" in refusal(tmp_path / "nowhere", store)
    (tmp_path / "file").write_text("")
    assert "is not a directory" in refusal(tmp_path / "file", store)


def test_an_ensemble_names_the_very_versions_and_digests(repository: Path, store: ModelStore) -> None:
    add_pipeline(repository)
    found = load(repository, store)
    assert [model.name for model in found.models] == ["double", "join", "triple", "pipeline"]
    pipeline = found.models[-1]
    assert [(step.model, step.version) for step in pipeline.config.steps] == [
        ("join", "1"),
        ("double", "1"),
        ("triple", "1"),
    ]
    assert [step.digest for step in pipeline.config.steps] == [
        store.resolve(name).digest for name in ("join", "double", "triple")
    ]
    assert found.digests == tuple(sorted(model.digest for model in found.models))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('platform: "ensemble"', 'platform: "onnxruntime_onnx"', 'an ensemble has platform: "ensemble"'),
        ('model_name: "triple"', 'model_name: "absent"', "ensemble contains model 'absent'"),
        ('model_name: "join", model_version: -1', 'model_name: "join", model_version: 2', "version 2 of model 'join'"),
        ('"y", value: "tripled"', '"y", value: "doubled"', "'doubled' can appear in an output map only once"),
        ('"b", value: "tripled"', '"b", value: "else"', "'else' that is mapped as an input is never produced"),
        ('"sum", value: "OUT"', '"sum", value: "other"', "output 'OUT' is not written by any step"),
        (
            'input_map { key: "x", value: "IN" }, output_map { key: "y", value: "tripled" }',
            'input_map { key: "x", value: "OUT" }, output_map { key: "y", value: "tripled" }',
            "circular dependency: these steps wait for each other: join, triple",
        ),
        (
            "input [ {",
            'input [ { name: "idle", data_type: TYPE_FP32, dims: [ 2 ] }, {',
            "ensemble input 'idle' isn't used",
        ),
        ("max_batch_size: 8", "max_batch_size: 9", "which only allows maximum batch size to be 8"),
        ("ensemble_scheduling", "instance_group {} ensemble_scheduling", "an ensemble has none"),
        (PIPELINE[PIPELINE.index("ensemble_s") :], "ensemble_scheduling {}", "an ensemble has 1 to 256 steps"),
        ('"double", model_version: -1,', '"pipeline", model_version: -1,', "circular dependency between ensembles"),
        ("model_version: -1,", 'model_namespace: "n",', "there are no namespaces"),
    ],
)  # fmt: skip
def test_an_ensemble_that_does_not_fit_together_is_refused(
    repository: Path, store: ModelStore, *, old: str, new: str, words: str
) -> None:
    assert old in PIPELINE
    add_pipeline(repository, PIPELINE.replace(old, new, 1))
    assert words in refusal(repository, store)


def test_an_ensembles_digest_is_the_one_of_the_specification(repository: Path, store: ModelStore) -> None:
    add_pipeline(repository)
    pipeline = load(repository, store).models[-1]
    digests = {name: store.resolve(name).digest for name in ("join", "double", "triple")}
    shape = {"datatype": "FP32", "shape": [-1, 2]}
    manifest = {
        "inputs": [{**shape, "name": "IN"}],
        "outputs": [{**shape, "name": "OUT"}, {**shape, "name": "GAP"}],
        "steps": [
            {
                "inputs": {"a": "doubled", "b": "tripled"},
                "model": digests["join"],
                "outputs": {"sum": "OUT", "difference": "GAP"},
            },
            {"inputs": {"x": "IN"}, "model": digests["double"], "outputs": {"y": "doubled"}},
            {"inputs": {"x": "IN"}, "model": digests["triple"], "outputs": {"y": "tripled"}},
        ],
    }
    encoded = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    hashed = hashlib.sha256(b"blindai/1 ensemble\0" + len(encoded).to_bytes(4, "big") + encoded)
    assert pipeline.digest == f"sha256:{hashed.hexdigest()}"


def test_the_description_covers_every_other_file(repository: Path, store: ModelStore) -> None:
    labelled = SCALER.replace('"y",', '"y", label_filename: "l",')
    add_model(repository, "m", labelled, files={"l": b"a\nb\n", "unused": b""})
    add_model(repository, "a", None, {1: lookup()})
    found = load(repository, store)
    assert json.loads(found.description) == [
        {"files": {}, "name": "a", "versions": {"1": store.resolve("a").digest}},
        {
            "files": {
                "config.pbtxt": hashlib.sha256(labelled.encode()).hexdigest(),
                "l": hashlib.sha256(b"a\nb\n").hexdigest(),
            },
            "name": "m",
            "versions": {"1": store.resolve("m").digest},
        },
    ]
