"""Rules for the operators of ai.onnx.ml, which work on tables [rows, features].

A rule answers with the node's outputs, or raises `RowsMixedError`.
Leaves out: LabelEncoder and its like (elementwise, row_rules.py), ArrayFeatureExtractor (row_choices.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.server.row_steps import RowsMixedError
from blindai.server.row_values import Shape, Size, Value, joined, shared

if TYPE_CHECKING:
    from blindai.server.row_steps import Step

_TABLE = range(2, 3)


def table(step: Step) -> tuple[Value, ...]:
    """Scalers, linear models, trees, support vectors.

    A list is one row to most of them, so it is refused.
    """
    if step.all_shared:
        return (shared(),) * step.outputs
    rows = step.rows(0, ranks=_TABLE)
    if len(step.inputs) != 1:
        raise RowsMixedError
    return tuple(joined(shape) for shape in _table_shapes(step, rows))


def _table_shapes(step: Step, rows: Shape) -> list[Shape]:
    scores = (rows[0], step.symbols.fresh())
    if step.operator.endswith("Classifier"):
        return [(rows[0],), scores][: step.outputs]
    if step.operator in {"Scaler", "Normalizer", "Imputer"}:
        return [rows]
    targets = step.attributes.get("n_targets", step.attributes.get("targets"))
    if step.operator == "SVMRegressor":
        targets = 1
    return [scores if targets is None else (rows[0], Size(int(targets)))]


def feature_vectorizer(step: Step) -> Value:
    """FeatureVectorizer: tables side by side."""
    if step.all_shared:
        return shared()
    tables = [step.rows(place, ranks=_TABLE) for place in range(len(step.inputs))]
    if any(one[0] != tables[0][0] for one in tables):
        raise RowsMixedError
    return joined((tables[0][0], step.symbols.fresh()))


def one_hot_encoder(step: Step) -> Value:
    """ai.onnx.ml OneHotEncoder: a new last axis."""
    value = step.needed(0)
    if value.shared:
        return shared()
    return joined((*step.rows(0), step.symbols.fresh()))
