"""`python -m blindai.server.provider_trial NAME...`: says which of these execution providers compute here.

Run by `provider_check`; its model is its own, so the process is not closed.
"""

from __future__ import annotations

import os
import sys

from blindai.errors import InvalidModelError
from blindai.server.warm_up import run_numbers


def main(names: list[str]) -> None:
    """Print the names of those that compute."""
    for name in names:
        try:
            run_numbers((name,))
        except InvalidModelError:
            continue
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # a provider's own threads may not hold the answer up
