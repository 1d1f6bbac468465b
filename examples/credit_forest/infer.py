"""Scores applicants without anybody else seeing them: `python infer.py URL --insecure-simulation`.

In the folder of credit.onnx and sample.npy, a row for each applicant.
"""

from __future__ import annotations

import argparse

import numpy as np

import blindai


def main() -> None:
    """Verify the server, upload the model, and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("applicants", nargs="?", default="sample.npy", metavar="FILE.npy")
    parser.add_argument("--policy", help="what the server must prove: a file, or a preset's name")
    parser.add_argument("--insecure-simulation", action="store_true", help="take a server that protects nothing")
    given = parser.parse_args()
    applicants = np.load(given.applicants)
    with blindai.connect(given.url, policy=given.policy, insecure_simulation=given.insecure_simulation) as client:
        client.upload_model("credit.onnx")
        for number, risk in enumerate(client.infer("credit", applicants)["risks"][:, 0]):
            print(f"applicant {number}: risk {risk:.3f}")


if __name__ == "__main__":
    main()
