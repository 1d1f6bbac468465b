"""Which model a request means, and whether the server's answer is about that one (docs/spec/receipt.md).

Leaves out: how it is asked (flows.py), and what else a receipt says (exchange_flow.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.bundle import MODEL_NAME, MODEL_VERSION, TENANT_NAME
from blindai.errors import InvalidInputError, InvalidReceiptError, ModelDigestMismatchError

if TYPE_CHECKING:
    from blindai.channel.keyset import Keyset
    from blindai.oip.rest import InferResponse, ModelMetadata
    from blindai.receipts import ModelIdentity, Receipt

LAST_UPLOADED = "@last"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """A model as the user names it.

    Attributes:
        name: None means the model uploaded last; `TENANT:NAME` means one that another tenant shares.
        digest: `sha256:<hex>` if the user pins it, else None.
        version: None leaves it to the server: the one uploaded last, or the one that has the digest.
    """

    name: str | None
    digest: str | None
    version: str | None

    @property
    def path(self) -> str:
        """The OIP path."""
        reference = LAST_UPLOADED if self.name is None else "@".join(filter(None, (self.name, self.digest)))
        return f"/v2/models/{reference}" + (f"/versions/{self.version}" if self.version is not None else "")

    def require_meant(self, metadata: ModelMetadata) -> None:
        """Whether this is the model that metadata describes.

        Raises:
            ModelDigestMismatchError: it has another name, digest or version than was asked for.
        """
        for what, asked, found in (
            ("name", self.name, metadata.name),
            ("digest", self.digest, metadata.digest),
            ("version", self.version, metadata.version),
        ):
            if asked is not None and found != asked:
                raise ModelDigestMismatchError(f"the server describes a model of another {what} than was asked for")


def parse_reference(model: str | None, version: str | None = None) -> ModelReference:
    """Read `name`, `tenant:name`, either with `@sha256:…`, or None for the model uploaded last.

    Raises:
        InvalidInputError: no model can have this name or version.
    """
    if version is not None and not MODEL_VERSION.match(str(version)):  # 2 is as good as "2"
        raise InvalidInputError(f"{version!r} cannot be a model's version")
    counted = None if version is None else str(version)
    if model is None or model == LAST_UPLOADED:  # an empty name is a mistake, and not the last model
        return ModelReference(name=None, digest=None, version=counted)
    name, at, digest = model.partition("@")
    owner, colon, own_name = name.rpartition(":")
    if not MODEL_NAME.match(own_name) or (colon and not TENANT_NAME.match(owner)) or (at and not _DIGEST.match(digest)):
        raise InvalidInputError(
            f"{model!r} cannot be a model's name",
            hint="a name has at most 128 letters, digits, '.', '_' or '-'; name@sha256:… ends with 64 hex digits",
        )
    return ModelReference(name=name, digest=digest or None, version=counted)


def require_answer(metadata: ModelMetadata, response: InferResponse) -> None:
    """Whether an answer names the model whose metadata the request was made from.

    Raises:
        InvalidReceiptError: it names another one.
    """
    if (response.model_name, response.model_version) != (metadata.name, metadata.version):
        raise InvalidReceiptError("the answer names another model than the one that was asked")


def require_model(metadata: ModelMetadata, receipt: Receipt, keyset: Keyset) -> None:
    """Whether a receipt names the model whose metadata the request was made from.

    Raises:
        InvalidReceiptError: it names another one, another precision, or an engine that was not attested.
    """
    model = receipt.model
    if model is None:
        raise InvalidReceiptError("the receipt of an inference names no model")
    if (model.name, model.version, model.digest) != (metadata.name, metadata.version, metadata.digest):
        raise InvalidReceiptError("the receipt names another model than the one that was asked")
    require_engine(model, keyset)
    if model.precision != metadata.precision:
        raise InvalidReceiptError("the receipt names another precision than the model's metadata")


def require_engine(model: ModelIdentity, keyset: Keyset) -> None:
    """Whether the model ran in an engine that evidence vouches for.

    Raises:
        InvalidReceiptError: the keyset lists no such engine.
    """
    attested = {f"{name} {version}" for name, version in keyset.software.engines}
    if not attested.issuperset(model.engine.split(", ")):  # parts of a model may run in several
        raise InvalidReceiptError("the receipt names an engine that the attested keyset does not list")
