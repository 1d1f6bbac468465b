"""One ModelConfig, written as config.pbtxt or as JSON, means the same; and what a load's JSON may not say."""

from __future__ import annotations

import pytest

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.server.model_config import ServingConfig
from blindai.server.model_config_json import read_config
from blindai.server.triton_config import MAX_CONFIG_BYTES, ModelPlan, parse_config, read_plan
from blindai.server.triton_files import Findings

_X = 'input { name: "x" data_type: TYPE_STRING dims: [ -1, 3 ] }'
_JSON_X = '"input": [{"name": "x", "data_type": "TYPE_STRING", "dims": ["-1", 3]}]'


def read_pbtxt(text: str) -> ModelPlan:
    findings = Findings()
    plan = read_plan(parse_config(text.encode(), "config.pbtxt", findings), "m", "config.pbtxt", findings)
    assert findings.problems == []
    return plan


@pytest.mark.parametrize(
    ("pbtxt", "text", "batching"),
    [
        ("", "{}", "auto"),
        ("instance_group { count: 2 } instance_group { }", '{"instance_group": [{"count": 2}, {}]}', "auto"),
        (_X, f"{{{_JSON_X}}}", "off"),
        ("max_batch_size: 8", '{"max_batch_size": 8}', "off"),
        ("max_batch_size: 8 dynamic_batching { }", '{"max_batch_size": 8, "dynamic_batching": {}}', "auto"),
        (f"max_batch_size: 8 {_X}", f'{{"maxBatchSize": 8, {_JSON_X}}}', "off"),
        (f"dynamic_batching {{ }} {_X}", f'{{"dynamic_batching": {{}}, {_JSON_X}}}', "off"),
        (
            'max_batch_size: 2 parameters { key: "blindai_batching" value { string_value: "on" } }',
            '{"max_batch_size": 2, "parameters": {"blindai_batching": {"string_value": "on"}}}',
            "on",
        ),
        (
            """max_batch_size: 8 dynamic_batching {
                 preferred_batch_size: 4 max_queue_delay_microseconds: 100 priority_levels: 2 default_priority_level: 1
                 default_queue_policy { max_queue_size: 5 default_timeout_microseconds: 7 allow_timeout_override: true }
               }""",
            """{"max_batch_size": 8, "dynamic_batching": {
                 "preferred_batch_size": [4], "max_queue_delay_microseconds": "100", "priority_levels": "2",
                 "default_priority_level": 1, "default_queue_policy":
                 {"max_queue_size": 5, "default_timeout_microseconds": 7, "allow_timeout_override": true}}}""",
            "auto",
        ),
        (
            'version_policy { latest { num_versions: 3 } } platform: "onnxruntime_onnx" name: "m"',
            '{"version_policy": {"latest": {"num_versions": 3}}, "platform": "onnxruntime_onnx", "name": "m"}',
            "auto",
        ),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: 4 optional: true }',
            '{"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4], "optional": true}]}',
            "off",
        ),
        ("version_policy { }", '{"version_policy": {}}', "auto"),
        (
            "version_policy { specific { versions: [ 1, 2 ] } }",
            '{"version_policy": {"specific": {"versions": [1, "2"]}}}',
            "auto",
        ),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 2 ] } }',
            '{"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4], "reshape": {"shape": [2, 2]}}]}',
            "off",
        ),
        (
            """optimization { graph { level: 1 } }
               parameters { key: "intra_op_thread_count" value { string_value: "3" } }""",
            """{"optimization": {"graph": {"level": 1}},
                "parameters": {"intra_op_thread_count": {"string_value": "3"}}}""",
            "auto",
        ),
    ],
    ids=range(15),
)
def test_a_configuration_means_the_same_in_both_spellings(pbtxt: str, text: str, batching: str) -> None:
    plan = read_config(text.encode(), name="m")
    assert plan == read_pbtxt(pbtxt)
    assert plan.serving.batching == batching


def test_an_empty_configuration_is_none() -> None:
    assert read_config(b"{}", name="m").serving == ServingConfig()


def test_declared_shapes_have_the_batchs_axis_first() -> None:
    (found,) = read_config(f'{{"max_batch_size": 8, {_JSON_X}}}'.encode(), name="m").serving.inputs
    assert (found.datatype, found.shape) == (Datatype.BYTES, (-1, -1, 3))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"version_policy": {"all": {}, "latest": {}}}', "version_policy"),
        ('{"instance_group": [{"count": 65}]}', "at most 64"),
        ('{"dynamic_batching": {"priority_levels": 2}}', "default_priority_level"),
        ('{"max_batch_size": 4, "dynamic_batching": {"preferred_batch_size": [5]}}', "preferred_batch_size"),
        ('{"input": [{"name": "x", "data_type": "FP32", "dims": []}]}', "enum"),
        ('{"input": [{"name": "x", "dims": [1]}]}', "data_type is missing"),
        ('{"input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["x"]}]}', "dims"),
        ('{"max_batch_size": 1.5}', "1.5"),
        ('{"max_batch_size": -1}', "0 or more"),
        ('{"dynamic_batching": {"default_queue_policy": {"timeout_action": "DELAY"}}}', "timeout_action"),
        ('{"dynamic_batching": ["priority_levels"]}', "priority_levels"),
        ('{"surprise": 1}', "no field named"),
        ('{"name": "other"}', "the model is called"),
        ('{"response_cache": {"enable": true}}', "never kept"),
        ('{"platform": "ensemble", "ensemble_scheduling": {"step": [{"model_name": "a"}]}}', "repository only"),
        ('{"model_warmup": [{"batch_size": 1}]}', "repository only"),
        ("[]", "object"),
        ("no json", "malformed"),
        (f'{{"name": "{"m" * MAX_CONFIG_BYTES}"}}', "more than 1048576 bytes"),
    ],
    ids=range(19),
)
def test_configurations_that_cannot_be_honoured_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match="the parameter `config`") as refused:
        read_config(text.encode(), name="m")
    assert words in str(refused.value)
    assert len(str(refused.value)) < 1024
