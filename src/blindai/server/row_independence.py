"""Decides whether requests may be joined along the first axis: whether each row is answered as it would be alone.

Decided from the graph alone, for every input there can be, and in doubt against joining. It holds for requests that
give every input the same number of rows, at least one, and agree in all other sizes, none of them 0; the answers are
then rows of the joined answer, but for the rounding of floating point, which may differ with the size of a matrix.
A model that fails on joined requests may succeed on each alone: one request's index past the end fails all.

Each tensor is followed through the nodes (row_values.py): *shared* is the same in every request, *joined* is the
requests' own elements one after another, and the rest is *mixed*. Operators without a rule mix: subgraphs, functions,
Einsum, NonZero, Unique, random numbers, DynamicQuantizeLinear (its scale is that of the whole batch), and all of
com.microsoft.
Leaves out: whether joining pays, and whose requests may be joined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

from blindai.server import row_choices, row_layers, row_rules, row_sizes, row_tables
from blindai.server.row_steps import RowsMixedError, Step
from blindai.server.row_values import (
    BATCH,
    Kind,
    Size,
    Symbols,
    Value,
    mixed,
    shared,
    whole_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Rule = Callable[[Step], Value | tuple[Value, ...]]

_DEFAULT, _ML = "", "ai.onnx.ml"
_MAX_ELEMENTS = 64
_WHOLE = frozenset({onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL})


@dataclass(frozen=True, slots=True, kw_only=True)
class RowVerdict:
    """Whether requests may be joined.

    Attributes:
        independent: whether each row's answer depends on that row alone.
        reason: why not, for people: names operators, never tensors; empty if they are.
    """

    independent: bool
    reason: str = ""


class _DependentError(Exception):
    """Why rows depend on each other; never leaves this file."""


def judge_rows(model: onnx.ModelProto) -> RowVerdict:
    """Decide whether each row of every answer depends on that row of the request alone.

    Args:
        model: as uploaded; of its weights only short lists of whole numbers are read.
    """
    try:
        _Walk(model).judge()
    except _DependentError as why:
        return RowVerdict(independent=False, reason=str(why))
    return RowVerdict(independent=True)


class _Walk:
    """Follows every tensor of one graph, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._functions = model.functions
        self._imports = {(_domain(entry.domain), entry.version) for entry in model.opset_import}
        self._versions = dict(self._imports)
        self._symbols = Symbols()
        self._values: dict[str, Value] = {}

    def judge(self) -> None:
        if self._functions:
            raise _DependentError("the model has functions of its own, which are not followed")
        if len(self._versions) < len(self._imports):
            raise _DependentError("the model names two versions of one operator set")
        self._start()
        for node in self._graph.node:
            self._follow(node)
        if not self._graph.output:
            raise _DependentError("the model has no output")
        for output in self._graph.output:
            self._judge_output(output)
        self._judge_unused()

    def _start(self) -> None:
        for tensor in self._graph.initializer:
            self._keep(tensor.name, _constant(tensor))
        for sparse in self._graph.sparse_initializer:
            self._keep(sparse.values.name, shared())
        inputs = [value for value in self._graph.input if value.name not in self._values]
        if not inputs:
            raise _DependentError("the model has no input")
        for place, value in enumerate(inputs):
            self._keep(value.name, _input(place, value))

    def _keep(self, name: str, value: Value) -> None:
        if name in self._values:
            raise _DependentError("two tensors of the model have the same name")
        self._values[name] = value

    def _follow(self, node: onnx.NodeProto) -> None:
        inputs = [self._values.get(name, mixed()) if name else None for name in node.input]
        domain = _domain(node.domain)
        rule = _RULES.get((domain, node.op_type), _no_rule)
        try:
            results = rule(
                Step(
                    operator=node.op_type,
                    version=self._versions.get(domain, 0),
                    attributes={attribute.name: _attribute(attribute) for attribute in node.attribute},
                    inputs=inputs,
                    outputs=len(node.output),
                    symbols=self._symbols,
                )
            )
        except (RowsMixedError, IndexError, TypeError, ValueError):  # an attribute that is not what it should be
            results = mixed()
        self._keep_outputs(node, inputs, results if isinstance(results, tuple) else (results,))

    def _keep_outputs(self, node: onnx.NodeProto, inputs: Iterable[Value | None], results: tuple[Value, ...]) -> None:
        culprit = next((value.culprit for value in inputs if value is not None and value.culprit), node.op_type)
        for place, name in enumerate(node.output):
            value = results[place] if place < len(results) else mixed()
            followed = value.kind is not Kind.MIXED or value.elements is not None or value.stride is not None
            if name:
                self._keep(name, value if followed or value.leads_with_row else replace(value, culprit=culprit))

    def _judge_unused(self) -> None:
        """What no output needs is run all the same, and could fail on the joined rows only."""
        needed = {output.name for output in self._graph.output}
        for node in reversed(self._graph.node):
            if needed.isdisjoint(node.output):
                culprit = next((self._values[name].culprit for name in node.output if name), "")
                if culprit:
                    raise _DependentError(f"a part that no output needs mixes rows, and could fail: {_known(culprit)}")
            else:
                needed.update(filter(None, node.input))  # an input left out has the name of an output left out

    def _judge_output(self, output: onnx.ValueInfoProto) -> None:
        value = self._values.get(output.name, mixed())
        if value.kind is Kind.MIXED:
            raise _DependentError(f"an output depends on how requests are joined: {_known(value.culprit)}")
        if not value.rows or value.rows[0] != BATCH:
            raise _DependentError("the first axis of an output is not shown to have one place for each row")
        declared = output.type.tensor_type
        if declared.HasField("shape") and (not declared.shape.dim or declared.shape.dim[0].HasField("dim_value")):
            raise _DependentError("the first axis of an output has a fixed size")


def _domain(name: str) -> str:
    return _DEFAULT if name == "ai.onnx" else name


def _known(operator: str) -> str:
    """An operator's type, unless the model's author made it up."""
    if not operator:
        return "it is made of numbers of rows"
    if any(operator == known for _, known in _RULES):
        return operator
    return operator if operator.isidentifier() and onnx.defs.has(operator) else "an operator that is not followed"


def _input(place: int, value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape") or not tensor.shape.dim:
        raise _DependentError("an input is not a tensor with a first axis")
    if tensor.shape.dim[0].HasField("dim_value"):
        raise _DependentError("the first axis of an input has a fixed size")
    sizes = (
        Size(dim.dim_value) if dim.HasField("dim_value") else Size(1, (f"input {place} axis {axis}",))
        for axis, dim in enumerate(tensor.shape.dim)
        if axis
    )
    return Value(kind=Kind.JOINED, shape=(BATCH, *sizes))


def _constant(tensor: onnx.TensorProto) -> Value:
    shape = tuple(map(Size, tensor.dims))
    count = 1
    for size in tensor.dims:
        count *= size
    short = len(shape) <= 1 and 0 <= count <= _MAX_ELEMENTS
    if short and tensor.data_type in _WHOLE and tensor.data_location != onnx.TensorProto.EXTERNAL:
        try:
            numbers = numpy_helper.to_array(tensor).reshape(-1).tolist()
        except (ValueError, TypeError):  # it does not hold what its sizes say
            return mixed()
        return whole_numbers(tuple(Size(int(number)) for number in numbers), shape)
    return shared(shape)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    """A number, text, list or tensor; a graph is no concern of any rule."""
    return onnx.helper.get_attribute_value(attribute)


def _no_rule(_step: Step) -> Value:
    raise RowsMixedError


def _constant_node(step: Step) -> Value:
    """Constant, in its many forms."""
    (name, value), *more = step.attributes.items()
    if more:
        raise RowsMixedError
    if name == "value":
        return _constant(value)
    numbers = value if isinstance(value, list) else [value]
    shape = (Size(len(numbers)),) if isinstance(value, list) else ()
    if name in {"value_int", "value_ints"} and len(numbers) <= _MAX_ELEMENTS:
        return whole_numbers(tuple(map(Size, numbers)), shape)
    return shared() if name == "sparse_value" else shared(shape)


def _filled(step: Step) -> Value:
    """ConstantOfShape, whose attribute is a tensor."""
    attributes: dict[str, Any] = {}
    if "value" in step.attributes:
        fill = numpy_helper.to_array(step.attributes["value"]).reshape(-1)
        attributes["value"] = int(fill[0]) if fill.dtype.kind in "ib" else float("nan")
    return row_rules.filled(replace(step, attributes=attributes))


def _rules(domain: str, rule: Rule, operators: str) -> dict[tuple[str, str], Rule]:
    return {(domain, operator): rule for operator in operators.split()}


_RULES: dict[tuple[str, str], Rule] = {
    **_rules(
        _DEFAULT,
        row_rules.elementwise,
        "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid "
        "HardSwish IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh "
        "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu",
    ),
    **_rules(
        _DEFAULT,
        row_rules.broadcast,
        "And BitShift BitwiseAnd BitwiseOr BitwiseXor Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Or Pow "
        "PRelu Sum Xor",
    ),
    **_rules(_DEFAULT, row_rules.arithmetic, "Add Div Equal Mul Sub"),
    **_rules(
        _DEFAULT, row_layers.reduce, "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin"
    ),
    **_rules(_DEFAULT, row_layers.reduce, " ReduceProd ReduceSum ReduceSumSquare"),
    **_rules(_DEFAULT, row_layers.matmul, "MatMul MatMulInteger QLinearMatMul"),
    **_rules(_DEFAULT, row_layers.convolution, "Conv ConvInteger ConvTranspose QLinearConv"),
    **_rules(_DEFAULT, row_layers.pool, "AveragePool LpPool MaxPool"),
    **_rules(_DEFAULT, row_layers.global_pool, "GlobalAveragePool GlobalLpPool GlobalMaxPool"),
    **_rules(_DEFAULT, row_layers.channel_layer, "GroupNormalization InstanceNormalization LRN"),
    **_rules(_DEFAULT, row_layers.layer_normalization, "LayerNormalization RMSNormalization"),
    **_rules(_DEFAULT, row_layers.softmax, "Hardmax LogSoftmax Softmax"),
    **_rules(_DEFAULT, row_layers.quantize, "DequantizeLinear QuantizeLinear"),
    **_rules(_DEFAULT, row_layers.arg_extreme, "ArgMax ArgMin"),
    **_rules(_DEFAULT, row_layers.rearranged, "DepthToSpace SpaceToDepth"),
    (_DEFAULT, "BatchNormalization"): row_layers.batch_normalization,
    (_DEFAULT, "Cast"): row_rules.cast,
    (_DEFAULT, "Concat"): row_rules.concat,
    (_DEFAULT, "Constant"): _constant_node,
    (_DEFAULT, "ConstantOfShape"): _filled,
    (_DEFAULT, "CumSum"): row_layers.cumulated,
    (_DEFAULT, "Dropout"): row_rules.dropout,
    (_DEFAULT, "Expand"): row_rules.expand,
    (_DEFAULT, "Flatten"): row_rules.flatten,
    (_DEFAULT, "Gather"): row_choices.gather,
    (_DEFAULT, "GatherElements"): row_choices.gather_elements,
    (_DEFAULT, "GatherND"): row_choices.gather_nd,
    (_DEFAULT, "Gemm"): row_layers.gemm,
    (_DEFAULT, "Identity"): row_rules.identity,
    (_DEFAULT, "LpNormalization"): row_layers.inner_axis,
    (_DEFAULT, "MeanVarianceNormalization"): row_layers.mean_variance,
    (_DEFAULT, "OneHot"): row_choices.one_hot,
    (_DEFAULT, "Pad"): row_choices.pad,
    (_DEFAULT, "Range"): row_sizes.number_range,
    (_DEFAULT, "Reshape"): row_rules.reshape,
    (_DEFAULT, "Shape"): row_sizes.shape_of,
    (_DEFAULT, "Size"): row_sizes.size_of,
    (_DEFAULT, "Slice"): row_choices.cut,
    (_DEFAULT, "Split"): row_choices.split,
    (_DEFAULT, "Squeeze"): row_rules.squeeze,
    (_DEFAULT, "Tile"): row_rules.tile,
    (_DEFAULT, "TopK"): row_layers.top_k,
    (_DEFAULT, "Transpose"): row_rules.transpose,
    (_DEFAULT, "Trilu"): row_choices.trilu,
    (_DEFAULT, "Unsqueeze"): row_rules.unsqueeze,
    (_DEFAULT, "Where"): row_rules.where,
    **_rules(_ML, row_rules.elementwise, "Binarizer CategoryMapper LabelEncoder"),
    **_rules(
        _ML,
        row_tables.table,
        "Imputer LinearClassifier LinearRegressor Normalizer Scaler SVMClassifier SVMRegressor TreeEnsemble "
        "TreeEnsembleClassifier TreeEnsembleRegressor",
    ),
    (_ML, "ArrayFeatureExtractor"): row_choices.array_feature_extractor,
    (_ML, "FeatureVectorizer"): row_tables.feature_vectorizer,
    (_ML, "OneHotEncoder"): row_tables.one_hot_encoder,
}
