"""A declared pipeline around a loaded model: what the two look like together, and one run of it.

In the model's own process, closed by then; or in the server's, with `isolation = "thread"`, like the model itself.
Leaves out: who runs the model (`server.engine`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError, InvalidModelError, TooLargeError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import Tensor, TensorSpec
from blindai.pipeline.answers import LabelAnswer, TextAnswer
from blindai.pipeline.declaration import Boxes, Labels, Picture, Sound, parse
from blindai.pipeline.detections import BoxAnswer
from blindai.pipeline.sounds import Sounds
from blindai.pipeline.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blindai.oip.datatypes import Array
    from blindai.pipeline.declaration import Declaration, Transcript, WordPiece
    from blindai.pipeline.frames import Frame
    from blindai.pipeline.pictures import Pictures

    Predict = Callable[[tuple[Tensor, ...], tuple[str, ...]], tuple[Tensor, ...]]

MAX_ROWS = 1024


class Pipeline:
    """A declaration that fits its model.

    Args:
        declaration: as the bundle has it.
        inputs: of the model.
        outputs: of the model.

    Attributes:
        inputs: what a request gives: one tensor of BYTES [rows], an element a text or a file.
        outputs: what it gets.

    Raises:
        InvalidModelError: the declaration is not about this model, or this server cannot do what it says.
    """

    def __init__(
        self, declaration: Declaration, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._source = _source_of(declaration.input)
        self._answer = None if declaration.output is None else _answer_of(declaration.output)
        _check_feeds(self._source.feeds, inputs)
        if self._answer is not None:
            _check_answer(self._answer, outputs)
        self.inputs = (TensorSpec(name=self._source.name, datatype=Datatype.BYTES, shape=(-1,)),)
        self.outputs = tuple(outputs) if self._answer is None else self._answer.outputs

    def run(self, given: Tensor, wished: Sequence[TensorSpec], predict: Predict) -> tuple[Tensor, ...]:
        """Predict from raw text, pictures or sound.

        Args:
            given: fits `inputs`.
            wished: some of `outputs`, in the order wished.
            predict: runs the model, with the names of the outputs to answer.

        Raises:
            InvalidInputError: an element cannot be read as what the model takes.
            TooLargeError: too many or too large.
            InternalError: the model failed.
        """
        elements = given.data.tolist()
        if not elements:
            raise InvalidInputError("the request has no element", hint=f"Give one {self._source.name} or more.")
        if len(elements) > MAX_ROWS:
            raise TooLargeError(f"the request has more than {MAX_ROWS} elements", hint="Send them in parts.")
        datatypes = {name: datatype for name, datatype, _ in self._source.feeds}
        feeds, frames = self._prepared(elements)
        tensors = tuple(
            Tensor(name=name, datatype=datatypes[name], shape=array.shape, data=array) for name, array in feeds.items()
        )
        names = tuple(spec.name for spec in wished)
        if self._answer is None:
            return predict(tensors, names)
        (raw,) = predict(tensors, (self._answer.of,))
        found = {raw.name: raw.data}
        made = self._answer.give(found, frames) if isinstance(self._answer, BoxAnswer) else self._answer.give(found)
        answers = {tensor.name: tensor for tensor in made}
        return tuple(answers[name] for name in names)

    def _prepared(self, elements: Sequence[bytes]) -> tuple[dict[str, Array], tuple[Frame, ...]]:
        """What the model takes, and of pictures where each lies in it."""
        if isinstance(self._source, Texts | Sounds):
            return self._source.prepare(elements), ()
        return self._source.framed(elements)


@functools.cache
def picture_decoder() -> type[Pictures] | None:
    """What reads pictures, or None without the extra `pictures`; asked before a model's process closes itself."""
    try:
        from blindai.pipeline.pictures import Pictures, decode_once  # noqa: PLC0415  # an extra
    except ImportError:
        return None
    decode_once()
    return Pictures


def pipeline_for(data: bytes, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Pipeline:
    """The pipeline of a bundle's file, for a loaded model.

    Raises:
        InvalidModelError: it cannot be read, or is not about this model.
    """
    return Pipeline(parse(data), inputs=inputs, outputs=outputs)


def _source_of(said: WordPiece | Picture | Sound) -> Texts | Pictures | Sounds:
    if isinstance(said, Picture):
        decoder = picture_decoder()
        if decoder is None:
            raise InvalidModelError("this server decodes no pictures", hint="Its operator installs blindai[pictures].")
        return decoder(said)
    return Sounds(said) if isinstance(said, Sound) else Texts(said)


def _answer_of(said: Labels | Boxes | Transcript) -> LabelAnswer | BoxAnswer | TextAnswer:
    if isinstance(said, Boxes):
        return BoxAnswer(said)
    return LabelAnswer(said) if isinstance(said, Labels) else TextAnswer(said)


def _check_feeds(feeds: Sequence[tuple[str, Datatype, int]], inputs: Sequence[TensorSpec]) -> None:
    """Each input of the model is fed once, with its datatype and rank."""
    expected = sorted((spec.name, spec.datatype, len(spec.shape)) for spec in inputs)
    if sorted(feeds) != expected:
        raise InvalidModelError(
            "the model's pipeline does not feed the inputs that the model has",
            hint="The model takes " + ", ".join(f"{name} {kind} of {rank} axes" for name, kind, rank in expected) + ".",
        )


def _check_answer(answer: LabelAnswer | BoxAnswer | TextAnswer, outputs: Sequence[TensorSpec]) -> None:
    fits = any((spec.name, len(spec.shape)) == (answer.of, answer.rank) for spec in outputs)
    is_fp32 = any(spec.name == answer.of and spec.datatype is Datatype.FP32 for spec in outputs)
    if not fits or not is_fp32:
        raise InvalidModelError(
            "the model's pipeline reads an output that the model does not have so",
            hint=f"It wants an output of FP32 with {answer.rank} axes.",
        )
