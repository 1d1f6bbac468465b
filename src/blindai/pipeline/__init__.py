"""Raw text, pictures and sound in; labels, boxes and text out, inside the enclave: declares a model's pipeline.

    pipeline.save("model.onnx", input=pipeline.text(tokenizer), output=pipeline.labels(["negative", "positive"]))
    client.upload_model("model.onnx")
    client.infer("model", "I love AI and privacy!")

`save` writes `model.onnx.pipeline.json` beside the model, where the upload finds it; it is part of the model's digest,
so a receipt vouches for it. Here the declaration is made; the server runs it.
"""

from __future__ import annotations

from blindai.pipeline.build import boxes, labels, picture, save, sound, text, transcript
from blindai.pipeline.declaration import (
    CentreCrop,
    CentreSquare,
    Crop,
    Letterbox,
    Resize,
    ResizeShorter,
    Step,
)

__all__ = [
    "CentreCrop",
    "CentreSquare",
    "Crop",
    "Letterbox",
    "Resize",
    "ResizeShorter",
    "Step",
    "boxes",
    "labels",
    "picture",
    "save",
    "sound",
    "text",
    "transcript",
]
