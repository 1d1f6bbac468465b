"""Finds documents without showing what is searched for: `python infer.py URL --insecure-simulation [QUERY …]`.

In the folder of search.onnx; without a query, it searches for those of sample.txt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import blindai


def main() -> None:
    """Verify the server, upload the search, and search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("queries", nargs="*", metavar="QUERY")
    parser.add_argument("--policy", help="what the server must prove: a file, or a preset's name")
    parser.add_argument("--insecure-simulation", action="store_true", help="take a server that protects nothing")
    given = parser.parse_args()
    queries = given.queries or Path("sample.txt").read_text("utf-8").splitlines()
    with blindai.connect(given.url, policy=given.policy, insecure_simulation=given.insecure_simulation) as client:
        client.upload_model("search.onnx")
        for query, found in zip(queries, client.infer("search", queries).labels(), strict=True):
            print(query)
            for title, cosine in found:
                print(f"  {cosine:.3f} {title}")


if __name__ == "__main__":
    main()
