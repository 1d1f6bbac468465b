"""The suite against any server: `python -m conformance URL [--ca FILE] [--install] [--bearer KEY]`, from `tests/`.

Prints a line for each check and the counts by section; the exit status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import sys

from conformance.run import TABLE, counts, outcome
from conformance.server_under_test import ServerUnderTest


def main() -> int:
    """Run all checks, or those whose ids begin with what is given."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--ca", help="trust this certificate; without it any is accepted")
    parser.add_argument("--bearer", help="an API key or token")
    parser.add_argument("--install", action="store_true", help="put the models in first")
    parser.add_argument("--only", default="", help="ids that begin so")
    options = parser.parse_args()
    headers = {"authorization": f"Bearer {options.bearer}"} if options.bearer else {}
    server = ServerUnderTest(options.url, ca=options.ca, headers=headers)
    if options.install:
        server.install()
    failures = {}
    for check in TABLE.values():
        if check.id.startswith(options.only):
            failure = outcome(check, server)
            why = f"  << {failure[:200]}" if failure else ""
            print(f"{check.id:5} {'FAIL' if failure else 'pass'}  {check.words}{why}")
            failures.update({check.id: failure} if failure else {})
    print(counts(failures))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
