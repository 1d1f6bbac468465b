"""The precisions that `blindai optimize` can make; a file of its own, so that the command line starts without ONNX.

Leaves out: how they are made (variants.py).
"""

from __future__ import annotations

import enum
from typing import Self


class Target(enum.StrEnum):
    """What to make of a model.

    Attributes:
        least_opset: the oldest operator set in which it can be said.
    """

    INT8 = "int8", 11
    BF16 = "bf16", 13
    FP16 = "fp16", 7
    FP32 = "fp32", 7

    least_opset: int

    def __new__(cls, value: str, least_opset: int) -> Self:
        """One member; enum calls this for each row above."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.least_opset = least_opset
        return member
