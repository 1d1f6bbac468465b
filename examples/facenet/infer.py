"""Compares faces that nobody else sees: `python infer.py URL --insecure-simulation [FILE FILE …]`.

In the folder of face.onnx; without files, it takes sample-*.png. JPEG or PNG, each a face that fills the picture.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import blindai


def main() -> None:
    """Verify the server, upload the model, and compare each picture with each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--policy", help="what the server must prove: a file, or a preset's name")
    parser.add_argument("--insecure-simulation", action="store_true", help="take a server that protects nothing")
    given = parser.parse_args()
    files = given.files or sorted(Path().glob("sample-*.png"))
    with blindai.connect(given.url, policy=given.policy, insecure_simulation=given.insecure_simulation) as client:
        client.upload_model("face.onnx")
        vectors = client.infer("face", files)["vectors"]
    for (one, vector), (other, its_vector) in combinations(zip(files, vectors, strict=True), 2):
        print(f"{one} and {other}: cosine {vector @ its_vector:.3f}")  # of one person near 1, if weights are trained


if __name__ == "__main__":
    main()
