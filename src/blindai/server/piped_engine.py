"""The engine with the bundle's pipeline around it, if it has one; without, the engine itself.

Leaves out: what a pipeline does (`pipeline`), and the model (`engine`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.bundle import PIPELINE_SUFFIX
from blindai.errors import InvalidModelError
from blindai.pipeline.run import pipeline_for
from blindai.server.engine import Engine, check_inputs, wished_outputs
from blindai.server.execution_providers import CPU

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.bundle import SessionOptions
    from blindai.oip.metadata import Precision
    from blindai.oip.tensors import Tensor, TensorSpec
    from blindai.pipeline.run import Pipeline
    from blindai.server.engine import RunSwitch


class PipedEngine:
    """One loaded bundle; arguments, attributes and methods are those of `Engine`.

    With a pipeline rows are never joined with another request's: texts are filled up to the longest beside them.
    """

    def __init__(
        self, session: SessionOptions | None = None, *, threads: int = 1, providers: tuple[str, ...] = (CPU,)
    ) -> None:
        self._engine = Engine(session, threads=threads, providers=providers)
        self._pipeline: Pipeline | None = None
        self.providers: tuple[str, ...] = ()
        self.rows_independent = False
        self.precision: Precision = "mixed"
        self.inputs: tuple[TensorSpec, ...] = ()
        self.optional: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()

    def load(self, files: Mapping[str, bytes | memoryview], *, rows_wanted: bool = False) -> None:
        """As `Engine.load`.

        Raises:
            InvalidModelError: the model or its pipeline cannot be run, or they do not fit each other.
        """
        pipeline_path = next(path for path in files if path.endswith(".onnx")) + PIPELINE_SUFFIX
        strays = [path for path in files if path.endswith(PIPELINE_SUFFIX) and path != pipeline_path]
        if strays:
            raise InvalidModelError(f"the pipeline {strays[0]} is not the model's", hint=f"Call it {pipeline_path}.")
        declared = files.get(pipeline_path)
        inner = self._engine
        inner.load(
            {path: data for path, data in files.items() if path != pipeline_path},
            rows_wanted=rows_wanted and declared is None,
        )
        self.providers, self.precision, self.rows_independent = inner.providers, inner.precision, inner.rows_independent
        self.inputs, self.optional, self.outputs = inner.inputs, inner.optional, inner.outputs
        if declared is not None:
            self._pipeline = pipeline_for(bytes(declared), inputs=inner.inputs, outputs=inner.outputs)
            self.inputs, self.optional, self.outputs = self._pipeline.inputs, (), self._pipeline.outputs

    def run(
        self, inputs: tuple[Tensor, ...], outputs: tuple[str, ...], switch: RunSwitch | None = None
    ) -> tuple[Tensor, ...]:
        """As `Engine.run`, or from raw text or files.

        Raises:
            InvalidInputError: they do not fit the model, or cannot be read as what it takes.
            TooLargeError: too many or too large for the pipeline.
            InternalError: the model failed on them, or the run was broken off.
        """
        if self._pipeline is None:
            return self._engine.run(inputs, outputs, switch)
        check_inputs(inputs, self.inputs)
        wished = wished_outputs(outputs, self.outputs)
        return self._pipeline.run(inputs[0], wished, lambda tensors, names: self._engine.run(tensors, names, switch))
