"""Every fuzz target of the project: one for each parser that reads what somebody else may have written.

`python -m fuzz NAME` runs one with atheris (tests/fuzz/__main__.py), and test_fuzz_targets.py all of them without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz import (
    door_targets,
    message_targets,
    model_targets,
    paper_targets,
    pipeline_targets,
    proof_targets,
    tee_targets,
)

if TYPE_CHECKING:
    from fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        message_targets,
        proof_targets,
        door_targets,
        model_targets,
        paper_targets,
        pipeline_targets,
        tee_targets,
    )
    for target in module.TARGETS
}
