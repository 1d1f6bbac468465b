"""Torch tensors go in as they are, and come out as they went in."""

from __future__ import annotations

import pytest

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import tensor_from

pytestmark = pytest.mark.seed


def test_torch_tensors_go_in_and_come_out() -> None:
    import torch

    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
        value = torch.tensor([[1, 0], [1, 1]], dtype=dtype, requires_grad=dtype.is_floating_point)
        tensor = tensor_from(value.t(), name="x")
        assert tensor.as_torch().dtype == dtype
        assert torch.equal(tensor.as_torch(), value.detach().t())
    assert tensor_from(torch.tensor(1.5, dtype=torch.bfloat16), name="x").datatype is Datatype.BF16
    assert tensor_from([torch.tensor(1), torch.tensor(2)], name="x").as_flat() == [1, 2]


def test_torch_tensors_without_an_oip_form_are_refused() -> None:
    import torch

    for refused in (torch.zeros(2).to_sparse(), torch.zeros(2, dtype=torch.complex64)):
        with pytest.raises(InvalidInputError):
            tensor_from(refused, name="x")
    with pytest.raises(InvalidInputError):
        tensor_from("text", name="x").as_torch()
