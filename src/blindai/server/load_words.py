"""`python -m blindai.server.load_words FILE...`: what ONNX Runtime itself says of a model that it does not load.

A server tells nobody, for the words may quote the model; its owner may read them. The process closes itself before it
looks at the model, as a server's does. Run by `model_trial`. Leaves out: whether the model may be loaded (`engine`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from blindai.errors import InvalidModelError
from blindai.server.engine import Engine
from blindai.server.sandbox import close_process
from blindai.server.warm_up import warm_up

_MAX_BYTES = 64 * 1024**3
_MAX_CHARACTERS = 2000


def main(paths: list[str]) -> None:
    """Load the files, and print why that failed; nothing if it did not."""
    warm_up()
    files = {Path(path).name: Path(path).read_bytes() for path in paths}
    close_process(max_address_space_bytes=_MAX_BYTES)
    try:
        Engine().load(files)
    except InvalidModelError as error:
        cause = error.__context__
        if type(cause).__module__.startswith("onnxruntime"):
            sys.stdout.write(str(cause)[:_MAX_CHARACTERS])


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
