"""What the client's calls return: values, each with the receipt that the enclave signed for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.client.exchange_flow import SealedResult
from blindai.client.proof import Opening, Proof
from blindai.errors import InvalidReceiptError

if TYPE_CHECKING:
    import numpy as np

    from blindai.client.pinned_flow import PinnedResult
    from blindai.oip.tensors import Tensor
    from blindai.receipts import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One model version on the server. `digest` is "sha256:" and 64 hex digits; `size_bytes` is that of its files."""

    name: str
    version: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing that a detector found. Sides are in pixels of the picture that was sent, as a viewer shows it."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedModel:
    """What became of an upload; `digest` was checked against the bytes that were sent.

    Attributes:
        simulated: whether no hardware protects it on the server that took it.
        signed: the receipt, or None where nothing was signed.
        exchange: the verified exchange that it came from, sealed or over pinned TLS.
    """

    name: str
    version: str
    digest: str
    simulated: bool
    signed: Receipt | None = field(repr=False)
    exchange: SealedResult | PinnedResult = field(repr=False)

    @property
    def receipt(self) -> Receipt:
        """What the enclave signed about this upload; every member was checked.

        Raises:
            InvalidReceiptError: nothing was signed, over pinned TLS or since `receipts=False` asked for nothing.
        """
        if self.signed is None:
            raise _no_receipt()
        return self.signed

    @property
    def sealed(self) -> SealedResult:
        """The exchange, of which the receipt was signed.

        Raises:
            InvalidReceiptError: nothing was signed, over pinned TLS or since `receipts=False` asked for nothing.
        """
        return _signed(self.exchange)[1]

    def proof(self) -> Proof:
        """What convinces others that the enclave answered an upload: publishable (`Proof.save`).

        Raises:
            InvalidReceiptError: nothing was signed, over pinned TLS or since `receipts=False` asked for nothing.
        """
        return _proof(self.sealed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferResult:
    """A prediction.

    Attributes:
        model_name: the model that answered.
        model_version: its version.
        outputs: its outputs, in the model's order.
        request_body: what was sent, as it stands in the opening of the proof.
        exchange: the verified exchange that it came from, sealed or over pinned TLS.
    """

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    request_body: bytes = field(repr=False)
    exchange: SealedResult | PinnedResult = field(repr=False)

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """An output by name, as a numpy array.

        Raises:
            KeyError: the model has no output of that name.
        """
        for tensor in self.outputs:
            if tensor.name == name:
                return tensor.as_numpy()
        raise KeyError(f"no output {name!r}; there are {[tensor.name for tensor in self.outputs]}")

    def as_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Every output by name."""
        return {tensor.name: tensor.as_numpy() for tensor in self.outputs}

    def labels(self) -> list[list[tuple[str, float]]]:
        """Of a model whose pipeline answers labels: for each row its labels and scores, the likeliest first.

        Raises:
            KeyError: it answers none.
        """
        rows = zip(self["labels"].tolist(), self["scores"].tolist(), strict=True)
        return [[(label.decode("utf-8", "replace"), score) for label, score in zip(*row, strict=True)] for row in rows]

    def boxes(self) -> list[list[Box]]:
        """Of a model whose pipeline answers boxes: for each picture what was found on it, the likeliest first.

        Raises:
            KeyError: it answers none.
        """
        rows = zip(self["labels"].tolist(), self["scores"].tolist(), self["boxes"].tolist(), strict=True)
        return [[_box(*one) for one in zip(*row, strict=True) if one[1]] for row in rows]  # others only fill the row

    def texts(self) -> list[str]:
        """Of a model whose pipeline answers text: the text of each row.

        Raises:
            KeyError: it answers none.
        """
        return [text.decode("utf-8", "replace") for text in self["text"].tolist()]

    @property
    def receipt(self) -> Receipt:
        """What the enclave signed about this prediction; every member was checked.

        Raises:
            InvalidReceiptError: nothing was signed, over pinned TLS or since `receipts=False` asked for nothing.
        """
        return _signed(self.exchange)[0]

    def proof(self) -> Proof:
        """What convinces others: publishable, without any data (`Proof.save`).

        Raises:
            InvalidReceiptError: nothing was signed, over pinned TLS or since `receipts=False` asked for nothing.
        """
        return _proof(_signed(self.exchange)[1])

    def opening(self) -> Opening:
        """What opens the proof to those who may see the data (`Opening.save`): keep it private.

        Raises:
            InvalidReceiptError: nothing was signed, over pinned TLS or since `receipts=False` asked for nothing.
        """
        _, sealed = _signed(self.exchange)
        return Opening(
            salt=sealed.salt,
            request_body=self.request_body,
            response_body=sealed.body,
            response_header_length=int(sealed.header("inference-header-content-length") or 0),
            nonce=sealed.keyset.nonce,
            batch=sealed.keyset.document.batch,
        )


def _box(label: bytes, score: float, sides: list[float]) -> Box:
    left, top, right, bottom = sides
    return Box(label=label.decode("utf-8", "replace"), score=score, left=left, top=top, right=right, bottom=bottom)


def _signed(exchange: SealedResult | PinnedResult) -> tuple[Receipt, SealedResult]:
    if not isinstance(exchange, SealedResult) or exchange.receipt is None:
        raise _no_receipt()
    return exchange.receipt, exchange


def _proof(sealed: SealedResult) -> Proof:
    return Proof(receipt=sealed.token, document=dataclasses.replace(sealed.keyset.document, batch=None))


def _no_receipt() -> InvalidReceiptError:
    return InvalidReceiptError(
        "nothing was signed, so there is no receipt and no proof: the pinned-TLS door signs no receipts, and a client "
        "with receipts=False asks for none",
        hint="leave out transport='tls' and receipts=False: the sealed door then signs every answer",
    )
