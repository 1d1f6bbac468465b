"""What a bundle says of its pipeline: how raw text, pictures or sound become tensors, and those labels, boxes or text.

The file `MODEL.onnx.pipeline.json` of a bundle (docs/spec/pipeline.md); the model's digest covers it like every file.
Read strictly: only the bytes that `encode` writes are accepted, so nothing in it is unknown, repeated or hidden.
Leaves out: doing it (`texts`, `pictures`, `sounds`, `answers`, `detections`), and whether the model fits it (`run`).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from blindai.errors import InvalidModelError

MAX_BYTES = 16 * 1024 * 1024
MAX_TOKENS = 65_536
MAX_SIDE = 16_384
MAX_PIXELS = 64 * 1024 * 1024
MAX_BOXES = 1000
_MAX_STEPS = 16

_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Words = Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(min_length=1, max_length=1_000_000)]
_Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
_Fraction = Annotated[float, Meta(ge=0.0, lt=1.0)]
_Channels = Annotated[tuple[float, ...], Meta(min_length=1, max_length=3)]
_Filter = Literal["nearest", "bilinear", "bicubic", "lanczos"]


class WordPiece(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="text", tag_field="kind"):
    """Text in, by BERT's tokenizer.

    Attributes:
        ids, mask, types: the model's INT64 inputs [rows, tokens]; None for one that it lacks.
        vocabulary: a token's number is its place.
        unknown, first, last, pad: tokens of the vocabulary.
        specials: tokens that are recognised where they stand in the text.
        clean, split_chinese, strip_accents, lowercase: BERT's normalisation.
        max_tokens: of a text, its first and last token included; a longer one is cut.
        max_word: characters of a word, beyond which it is unknown.
    """

    ids: _Name
    mask: _Name | None
    types: _Name | None
    vocabulary: _Words
    unknown: str
    first: str
    last: str
    pad: str
    specials: Annotated[tuple[_Name, ...], Meta(max_length=1024)]
    clean: bool
    split_chinese: bool
    strip_accents: bool
    lowercase: bool
    max_tokens: Annotated[int, Meta(ge=3, le=MAX_TOKENS)]
    max_word: Annotated[int, Meta(ge=1, le=1000)]


class Crop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="crop", tag_field="step"):
    """Cut fractions of the height or width off; at least one pixel stays."""

    top: _Fraction = 0.0
    bottom: _Fraction = 0.0
    left: _Fraction = 0.0
    right: _Fraction = 0.0


class CentreSquare(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="centre_square", tag_field="step"):
    """The largest square in the middle."""


class CentreCrop(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="centre_crop", tag_field="step"
):
    """A piece of this size from the middle; black where the picture is smaller."""

    width: _Side
    height: _Side


class Resize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resize", tag_field="step"):
    """To this size, whatever the proportions were."""

    width: _Side
    height: _Side
    filter: _Filter = "bilinear"


class ResizeShorter(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resize_shorter", tag_field="step"
):
    """The shorter side to this size, proportions kept."""

    size: _Side
    filter: _Filter = "bilinear"


class Letterbox(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="letterbox", tag_field="step"
):
    """Into this size, proportions kept, in the middle of a plain border."""

    width: _Side
    height: _Side
    border: Annotated[int, Meta(ge=0, le=255)] = 114
    filter: _Filter = "bilinear"


Step = Crop | CentreSquare | CentreCrop | Resize | ResizeShorter | Letterbox


class Picture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="picture", tag_field="kind"):
    """JPEG or PNG in.

    Attributes:
        to: the model's FP32 input, [rows, channels, height, width] or [rows, height, width, channels].
        colours: the order of the channels; L is grey.
        steps: what is done to the picture, in order; the last sizes decide the tensor's.
        scale: a pixel of 0 to 255 becomes (pixel · scale − mean) / deviation.
        mean, deviation: one number, or one for each channel.
        layout: of the tensor.
        max_pixels: of a picture that is decoded.
    """

    to: _Name
    colours: Literal["RGB", "BGR", "L"]
    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=_MAX_STEPS)]
    scale: float
    mean: _Channels
    deviation: _Channels
    layout: Literal["NCHW", "NHWC"]
    max_pixels: Annotated[int, Meta(ge=1, le=MAX_PIXELS)]


class Sound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="sound", tag_field="kind"):
    """WAV in; channels are averaged, and samples lie between −1 and 1.

    Attributes:
        to: the model's FP32 input.
        rate: samples in a second, which the file must have.
        layout: NT is [rows, samples], NCT [rows, 1, samples].
        samples: cut or filled with silence to this number; None keeps the file's.
        normalise: to mean 0 and variance 1, as wav2vec2's feature extractor.
        max_seconds: of a file.
    """

    to: _Name
    rate: Annotated[int, Meta(ge=1, le=768_000)]
    layout: Literal["NT", "NCT"]
    samples: Annotated[int, Meta(ge=1, le=100_000_000)] | None
    normalise: bool
    max_seconds: Annotated[int, Meta(ge=1, le=3600)]


class Labels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="labels", tag_field="kind"):
    """Labels out, the likeliest first.

    Attributes:
        of: the model's FP32 output [rows, labels].
        labels: their names, in the model's order.
        activation: what makes scores of the model's numbers.
        top: how many of them are answered.
    """

    of: _Name
    labels: _Words
    activation: Literal["softmax", "sigmoid", "none"]
    top: Annotated[int, Meta(ge=1, le=1_000_000)]


class Boxes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="boxes", tag_field="kind"):
    """Boxes out, on the picture that came in, the likeliest first.

    Attributes:
        of: the model's FP32 output [rows, candidates, 5 + labels].
        form: what the numbers of a candidate mean.
        labels: their names, in the model's order.
        threshold: the least score of a box that is answered.
        overlap: two boxes of a label that share more (intersection over union) show the same thing.
        top: how many are answered at most.
    """

    of: _Name
    form: Literal["yolov5"]
    labels: _Words
    threshold: Annotated[float, Meta(gt=0.0, le=1.0)]
    overlap: Annotated[float, Meta(ge=0.0, le=1.0)]
    top: Annotated[int, Meta(ge=1, le=MAX_BOXES)]


class Transcript(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="transcript", tag_field="kind"
):
    """Text out, by CTC: the likeliest token of each step, repeats joined, blanks left out.

    Attributes:
        of: the model's FP32 output [rows, steps, tokens].
        vocabulary: a token's number is its place.
        blank: the token that means nothing.
        silent: further tokens that are left out.
        space: the token between words, or None.
    """

    of: _Name
    vocabulary: _Words
    blank: str
    silent: tuple[str, ...]
    space: str | None


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole pipeline: `output` None answers the model's own tensors."""

    version: Literal[1]
    input: WordPiece | Picture | Sound
    output: Labels | Boxes | Transcript | None


_decoder = msgspec.json.Decoder(Declaration)
_encoder = msgspec.json.Encoder()


def encode(declaration: Declaration) -> bytes:
    """The one form of it: compact JSON, members in the order above.

    Raises:
        InvalidModelError: what it says is not possible.
    """
    data = _encoder.encode(declaration)
    parse(data)
    return data


def parse(data: bytes) -> Declaration:
    """Read a pipeline's file.

    Raises:
        InvalidModelError: too large, unknown or missing members, another form, or what it says is not possible.
    """
    if len(data) > MAX_BYTES:
        raise InvalidModelError(f"the model's pipeline has {len(data)} bytes, at most {MAX_BYTES} are accepted")
    try:
        declaration = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidModelError(f"the model's pipeline cannot be read: {str(problem)[:200]}", hint=_HINT) from None
    if _encoder.encode(declaration) != data:
        raise InvalidModelError("the model's pipeline is not written in its one form", hint=_HINT)
    _check_input(declaration.input)
    if declaration.output is not None:
        _check_output(declaration.output)
    if isinstance(declaration.output, Boxes):
        _require(isinstance(declaration.input, Picture), "there are boxes only on a picture")
    return declaration


_HINT = "Write it with blindai.pipeline of the server's version."


def _check_input(said: WordPiece | Picture | Sound) -> None:
    if isinstance(said, WordPiece):
        tokens = (said.unknown, said.first, said.last, said.pad, *said.specials)
        _require(len(set(said.vocabulary)) == len(said.vocabulary), "a token stands twice in the vocabulary")
        _require(set(tokens) <= set(said.vocabulary), "a token that it names is not in the vocabulary")
    elif isinstance(said, Picture):
        channels = 1 if said.colours == "L" else 3
        numbers = (said.scale, *said.mean, *said.deviation)
        _require(all(map(math.isfinite, numbers)) and 0 not in said.deviation, "a number of the recipe is not usable")
        _require({len(said.mean), len(said.deviation)} <= {1, channels}, "mean and deviation fit no channels")
        for step in said.steps:
            if isinstance(step, Crop):
                most = max(step.top + step.bottom, step.left + step.right)
                _require(most < 1, "a crop leaves nothing")


def _check_output(said: Labels | Boxes | Transcript) -> None:
    if isinstance(said, Labels):
        _require(said.top <= len(said.labels), "more labels are answered than there are")
    elif isinstance(said, Transcript):
        tokens = {said.blank, *said.silent, *((said.space,) if said.space is not None else ())}
        _require(len(set(said.vocabulary)) == len(said.vocabulary), "a token stands twice in the vocabulary")
        _require(tokens <= set(said.vocabulary), "a token that it names is not in the vocabulary")


def _require(holds: bool, problem: str) -> None:  # noqa: FBT001  # a fact and its words
    if not holds:
        raise InvalidModelError(f"the model's pipeline is not possible: {problem}", hint=_HINT)
