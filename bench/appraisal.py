"""How long each TEE's evidence takes to verify and to check: `python bench/appraisal.py [RUNS]`, a table to stdout.

`BLINDAI_EVIDENCE` names the folder of genuine samples; without it only the fake vendors' items are timed.
The bar is 3 ms of one core, and 20 ms with NVIDIA's RIMs; `!` stands where it is passed.
`verify, first` is with nothing kept of earlier appraisals; the sum is of all those that follow.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from attestation.times import timings

RUNS = 25

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # cryptography's, about AMD's serial numbers
    print("| evidence | parse | verify, first | verify | check | verify + check | bar |\n|---|---|---|---|---|---|---|")
    for one in timings(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS):
        total = f"{one.total_ms:.2f}{'' if one.total_ms <= one.bar_ms else ' !'}"
        verify = f"{one.first_ms:.2f} | {one.verify_ms:.2f}"
        print(f"| {one.name} | {one.parse_ms:.2f} | {verify} | {one.check_ms:.2f} | {total} | {one.bar_ms:g} |")
