"""All checks in one table, and which ids of the design's list stand elsewhere.

Leaves out: the command line (`__main__`) and pytest (`test_conformance`).
"""

from __future__ import annotations

import importlib
from collections import Counter
from typing import TYPE_CHECKING

from conformance.checks import TABLE, Check

if TYPE_CHECKING:
    from collections.abc import Collection

    from conformance.server_under_test import ServerUnderTest

__all__ = ["ELSEWHERE", "PROXY_IS_DIFFERENT", "TABLE", "counts", "outcome"]

SECTIONS = {
    "H": "health", "M": "models", "I": "inference", "Q": "parameters", "B": "binary", "C": "classification",
    "R": "repository", "X": "left out", "Z": "hardening",
}  # fmt: skip
_MODULES = (
    "health", "models", "inference", "elements", "parameters", "binary", "bytes", "classification", "repository",
    "other",
)  # fmt: skip
for _module in _MODULES:
    importlib.import_module(f"conformance.checks_{_module}")

# Ids that one request at a time from outside cannot show; each with the test that shows it, or why there is none.
ELSEWHERE = {
    "M21": "tests/server/test_triton_start.py::test_a_model_is_warm_before_the_server_listens",
    "Q8": "tests/server/test_scheduling.py::test_a_request_waits_no_longer_than_it_may",
    "Q9": "tests/server/test_scheduling.py::test_a_full_queue_refuses_with_429_and_advice",
    "Q10": "tests/server/test_scheduling.py::test_a_deadline_of_its_own_ends_a_run_and_not_its_process",
    "Q11": "tests/server/test_scheduling.py::test_a_run_that_nobody_waits_for_is_broken_off",
    "B40": "tests/clients/test_clients.py::test_tritonclient",
    "B41": "tests/server/test_limits.py::test_a_request_that_no_waiting_would_help_is_too_large",
    "R22": "tests/server/test_repository_extension.py::test_a_policy_without_uploads_takes_no_files",
    "R23": "tests/server/test_repository_extension.py::test_only_who_may_change_models_loads_and_unloads",
    "X5": "left out: text generation is not served yet",
    "X6": "left out: text generation is not served yet",
    "X7": "left out: metrics have names of their own",
    "Z2": "tests/attacks/test_attacks_on_serving.py::test_a_million_tiny_chunks_are_not_read",
    "Z3": "tests/attacks/test_attacks_on_serving.py::test_slow_clients_end_and_nobody_waits_for_them",
    "Z4": "tests/attacks/test_attacks_on_serving.py::test_huge_heads_are_refused",
    "Z5": "tests/attacks/test_attacks_on_serving.py::test_idle_connections_and_pipelines_starve_nobody",
    "Z6": "tests/attacks/test_attacks_on_serving.py::test_a_fuzzer_finds_no_failure",
    "Z8": "tests/attacks/test_attacks_by_models.py::test_a_memory_bomb_fails_alone",
    "Z9": "tests/attacks/test_attacks_by_models.py::test_a_run_without_end_ends_at_the_deadline_and_others_go_on",
    "Z10": "tests/attacks/test_attacks_on_serving.py::test_a_kill_among_32_requests_costs_only_what_ran",
    "Z11": "tests/test_model_guard.py::test_refuses_external_data_where_onnx_runtime_would_read_the_disk",
    "Z12": "left out: onnxruntime-extensions is never loaded, and the guard knows no such operator",
    "Z13": "tests/attacks/test_attacks_on_leftovers.py::test_a_canary_is_in_no_log_metric_or_error_text",
    "Z14": "tests/attacks/test_attacks_on_leftovers.py::test_the_same_request_is_computed_again",
    "Z15": "tests/server/test_metrics.py::test_every_name_and_label_is_on_the_list_whatever_is_counted",
}

# Checks that the TLS door passes and the local proxy need not; each with why.
PROXY_IS_DIFFERENT = {
    "H8": "the root is the proxy's page for people, which says what was verified: tests/proxy/test_http_front.py",
}


def outcome(check: Check, server: ServerUnderTest) -> str:
    """Why a check failed; empty if it did not."""
    try:
        check.run(server)
    except Exception as error:  # noqa: BLE001  # any failure is an outcome of the suite
        return f"{type(error).__name__}: {error}"
    return ""


def counts(failures: Collection[str]) -> str:
    """How many passed in each section."""
    total = Counter(identifier[0] for identifier in TABLE)
    failed = Counter(identifier[0] for identifier in failures)
    parts = [f"{name} {total[letter] - failed[letter]}/{total[letter]}" for letter, name in SECTIONS.items()]
    return f"{len(TABLE) - len(failures)} of {len(TABLE)} checks pass: {', '.join(parts)}"
