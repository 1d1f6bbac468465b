"""Tells which vowel is spoken, and nobody else listens: `python infer.py URL --insecure-simulation [FILE.wav …]`.

In the folder of vowels.onnx; without a file, it takes sample-*.wav.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import blindai


def main() -> None:
    """Verify the server, upload the model, and let it listen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.wav", help="8000 samples in a second")
    parser.add_argument("--policy", help="what the server must prove: a file, or a preset's name")
    parser.add_argument("--insecure-simulation", action="store_true", help="take a server that protects nothing")
    given = parser.parse_args()
    files = given.files or sorted(Path().glob("sample-*.wav"))
    with blindai.connect(given.url, policy=given.policy, insecure_simulation=given.insecure_simulation) as client:
        client.upload_model("vowels.onnx")
        for file, labels in zip(files, client.infer("vowels", files).labels(), strict=True):
            print(f"{file}: {labels[0][0]} {labels[0][1]:.3f}")


if __name__ == "__main__":
    main()
