"""Asks how people feel, without anybody else reading it: `python infer.py URL --insecure-simulation [TEXT …]`.

In the folder of sentiment.onnx; without a text, it asks about those of sample.txt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import blindai


def main() -> None:
    """Verify the server, upload the model, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("texts", nargs="*", metavar="TEXT")
    parser.add_argument("--policy", help="what the server must prove: a file, or a preset's name")
    parser.add_argument("--insecure-simulation", action="store_true", help="take a server that protects nothing")
    given = parser.parse_args()
    texts = given.texts or Path("sample.txt").read_text("utf-8").splitlines()
    with blindai.connect(given.url, policy=given.policy, insecure_simulation=given.insecure_simulation) as client:
        client.upload_model("sentiment.onnx")
        for text, labels in zip(texts, client.infer("sentiment", texts).labels(), strict=True):
            print(f"{labels[0][0]} {labels[0][1]:.4f} {text}")


if __name__ == "__main__":
    main()
