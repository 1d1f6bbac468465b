"""A child process: runs the script named first, whose last line keeps the answer in `response`, and prints that."""

from __future__ import annotations

import json
import runpy
import sys

response = runpy.run_path(sys.argv[1], run_name="__main__")["response"]
print(json.dumps(response.output))
