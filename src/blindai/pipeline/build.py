"""Makes declarations from what a model's owner has: a Hugging Face tokenizer, its files, a recipe in words.

transformers and tokenizers are recognised by what their objects can do, and never imported.
Leaves out: tokenizers other than WordPiece, which are refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from blindai.bundle import PIPELINE_SUFFIX
from blindai.errors import InvalidModelError
from blindai.pipeline.declaration import (
    Boxes,
    Declaration,
    Labels,
    Picture,
    Sound,
    Transcript,
    WordPiece,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blindai.pipeline.declaration import Step

_MAX_TOKENS = 512
_MAX_PIXELS = 40_000_000
_UNSET_LENGTH = 1_000_000  # transformers writes 10^30 where nothing bounds a text


def save(
    model: str | os.PathLike[str],
    *,
    input: WordPiece | Picture | Sound,  # noqa: A002  # the word of the file's format
    output: Labels | Boxes | Transcript | None = None,
) -> Path:
    """Write a model's pipeline beside it, and return where.

    Args:
        model: the `.onnx` file.
        input: from `text`, `picture` or `sound`.
        output: from `labels`, `boxes` or `transcript`; None answers the model's own tensors.

    Raises:
        InvalidModelError: what it says is not possible.
        FileNotFoundError: no such model.
    """
    path = Path(model)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    beside = path.with_name(path.name + PIPELINE_SUFFIX)
    beside.write_bytes(encode(Declaration(version=1, input=input, output=output)))
    return beside


def text(
    tokenizer: Any,
    *,
    inputs: Sequence[str] | None = None,
    max_tokens: int | None = None,
    lowercase: bool = True,
) -> WordPiece:
    """Text in, by BERT's WordPiece.

    Args:
        tokenizer: of transformers (fast) or tokenizers; or the path of a `tokenizer.json` or `vocab.txt`.
        inputs: of the model, some of `input_ids`, `attention_mask` and `token_type_ids`; by default those that the
            tokenizer makes, or the first two.
        max_tokens: beyond which a text is cut; the tokenizer's own by default, or 512.
        lowercase: for a `vocab.txt`, which does not say it.

    Raises:
        InvalidModelError: it is not WordPiece as BERT has it.
        FileNotFoundError: no such file.
    """
    description, own_inputs, own_length = _described(tokenizer, lowercase=lowercase)
    names = set(inputs or own_inputs)
    if not {"input_ids"} <= names <= {"input_ids", "attention_mask", "token_type_ids"}:
        raise InvalidModelError("a BERT takes input_ids, and perhaps attention_mask and token_type_ids")
    try:
        return _word_piece(description, names, max_tokens or own_length)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise InvalidModelError(f"the tokenizer's description is not BERT's: {problem!r}", hint=_ONLY) from None


def word_piece_of(tokens: Sequence[str], *, lowercase: bool = True) -> WordPiece:
    """Text in, by BERT's own settings and these tokens, whose numbers are their places."""
    return _word_piece(_of_vocabulary(tokens, lowercase=lowercase), {"input_ids", "attention_mask"}, _MAX_TOKENS)


def picture(
    to: str,
    *,
    steps: Sequence[Step],
    colours: Literal["RGB", "BGR", "L"] = "RGB",
    scale: float = 1 / 255,
    mean: Sequence[float] = (0.0,),
    deviation: Sequence[float] = (1.0,),
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    max_pixels: int = _MAX_PIXELS,
) -> Picture:
    """JPEG or PNG in; a pixel of 0 to 255 becomes (pixel · scale − mean) / deviation (`declaration.Picture`)."""
    return Picture(
        to=to,
        colours=colours,
        steps=tuple(steps),
        scale=float(scale),
        mean=tuple(map(float, mean)),
        deviation=tuple(map(float, deviation)),
        layout=layout,
        max_pixels=max_pixels,
    )


def sound(
    to: str,
    *,
    rate: int,
    layout: Literal["NT", "NCT"] = "NT",
    samples: int | None = None,
    normalise: bool = False,
    max_seconds: int = 60,
) -> Sound:
    """WAV in (`declaration.Sound`)."""
    return Sound(to=to, rate=rate, layout=layout, samples=samples, normalise=normalise, max_seconds=max_seconds)


def labels(
    names: Sequence[str] | Mapping[int, str],
    *,
    of: str = "logits",
    activation: Literal["softmax", "sigmoid", "none"] = "softmax",
    top: int | None = None,
) -> Labels:
    """Labels and scores out.

    Args:
        names: in the model's order; or transformers' `config.id2label`.
        of: the model's output.
        activation: what makes scores of it.
        top: how many are answered; all up to 5 by default.
    """
    listed = _listed(names)
    return Labels(of=of, labels=listed, activation=activation, top=top or min(5, len(listed)))


def boxes(
    names: Sequence[str] | Mapping[int, str],
    *,
    of: str = "output0",
    threshold: float = 0.25,
    overlap: float = 0.45,
    top: int = 300,
) -> Boxes:
    """Boxes out, of a detector that answers as YOLOv5 does: [rows, candidates, 5 + labels], NMS not done.

    Args:
        names: of the labels, in the model's order; or its `names`.
        of: the model's output.
        threshold: the least score that is answered.
        overlap: the share in common (intersection over union) above which two boxes of a label show one thing.
        top: how many boxes of a picture are answered at most, up to 1000.
    """
    return Boxes(
        of=of, form="yolov5", labels=_listed(names), threshold=float(threshold), overlap=float(overlap), top=top
    )


def _listed(names: Sequence[str] | Mapping[int, str]) -> tuple[str, ...]:
    given = names if not hasattr(names, "items") else [name for _, name in sorted(names.items())]
    return tuple(map(str, given))


def transcript(
    vocabulary: Sequence[str] | Mapping[str, int],
    *,
    of: str = "logits",
    blank: str = "<pad>",
    silent: Sequence[str] = ("<s>", "</s>", "<unk>"),
    space: str | None = "|",
) -> Transcript:
    """Text out, by CTC; the defaults are wav2vec2's.

    Args:
        vocabulary: in the model's order; or a tokenizer's `get_vocab()`.
        of: the model's output [rows, steps, tokens].
        blank: the token that means nothing.
        silent: others to leave out, if the vocabulary has them.
        space: the token between words.
    """
    tokens = tuple(_in_order(dict(vocabulary.items())) if hasattr(vocabulary, "items") else vocabulary)
    return Transcript(
        of=of, vocabulary=tokens, blank=blank, silent=tuple(one for one in silent if one in tokens), space=space
    )


_ONLY = "Only WordPiece with BERT's normalizer, pre-tokenizer and template is run; feed tensors for other tokenizers."


def _described(tokenizer: Any, *, lowercase: bool) -> tuple[dict[str, Any], Sequence[str], int]:
    """The content of a `tokenizer.json`, the model's inputs and the longest text in tokens."""
    own_inputs: Sequence[str] = ("input_ids", "attention_mask")
    if isinstance(tokenizer, str | os.PathLike):
        data = Path(tokenizer).read_text("utf-8")
        if Path(tokenizer).suffix == ".json":
            return json.loads(data), own_inputs, _MAX_TOKENS
        return _of_vocabulary(data.removesuffix("\n").split("\n"), lowercase=lowercase), own_inputs, _MAX_TOKENS
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        raise InvalidModelError("the tokenizer is none of transformers' fast ones or of tokenizers", hint=_ONLY)
    length = int(getattr(tokenizer, "model_max_length", _MAX_TOKENS))
    return (
        json.loads(backend.to_str()),
        getattr(tokenizer, "model_input_names", own_inputs),
        length if length < _UNSET_LENGTH else _MAX_TOKENS,
    )


def _of_vocabulary(tokens: Sequence[str], *, lowercase: bool) -> dict[str, Any]:
    ids = {token: index for index, token in enumerate(tokens)}
    specials = [token for token in ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]") if token in ids]
    normalizer = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": lowercase}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": ids}
    return {
        "model": {**model, "max_input_chars_per_word": 100},
        "normalizer": {"type": "BertNormalizer", **normalizer},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 0], "cls": ["[CLS]", 0]},
        "added_tokens": [{"content": token, "special": True, "id": ids[token]} for token in specials],
    }


def _word_piece(description: dict[str, Any], names: set[str], max_tokens: int) -> WordPiece:
    model, normalizer = description["model"], description["normalizer"]
    kinds = (model["type"], normalizer["type"], description["pre_tokenizer"]["type"])
    if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer") or model["continuing_subword_prefix"] != "##":
        raise ValueError(" · ".join(map(str, kinds)))
    first, last = _ends(description["post_processor"])
    vocabulary, added = dict(model["vocab"]), description["added_tokens"]
    for token in added:
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word") or token.get("normalized"):
            raise ValueError("an added token that takes its surroundings along")
        if vocabulary.setdefault(token["content"], token["id"]) != token["id"]:
            raise ValueError("an added token with another number")
    lowercase = bool(normalizer["lowercase"])
    accents = normalizer["strip_accents"]
    padding = description.get("padding") or {}
    return WordPiece(
        ids="input_ids",
        mask="attention_mask" if "attention_mask" in names else None,
        types="token_type_ids" if "token_type_ids" in names else None,
        vocabulary=tuple(_in_order(vocabulary)),
        unknown=model["unk_token"],
        first=first,
        last=last,
        pad=padding.get("pad_token", "[PAD]"),
        specials=tuple(token["content"] for token in added),
        clean=bool(normalizer["clean_text"]),
        split_chinese=bool(normalizer["handle_chinese_chars"]),
        strip_accents=lowercase if accents is None else bool(accents),
        lowercase=lowercase,
        max_tokens=max_tokens,
        max_word=model["max_input_chars_per_word"],
    )


def _ends(processor: dict[str, Any]) -> tuple[str, str]:
    """The first and last token of a text: [CLS] $A [SEP]."""
    if processor["type"] == "BertProcessing":
        return processor["cls"][0], processor["sep"][0]
    first, text_itself, last = processor["single"]
    if processor["type"] != "TemplateProcessing" or "Sequence" not in text_itself:
        raise ValueError("another template than [CLS] $A [SEP]")
    return first["SpecialToken"]["id"], last["SpecialToken"]["id"]


def _in_order(vocabulary: Mapping[str, int]) -> list[str]:
    """Tokens by their numbers, which leave no gap.

    Raises:
        InvalidModelError: they do.
    """
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise InvalidModelError("the numbers of the vocabulary's tokens leave gaps")
    return sorted(vocabulary, key=lambda token: vocabulary[token])
