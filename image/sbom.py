"""The image's bill of materials, CycloneDX 1.6 in JSON, of the lock list: what is in root, initrd and kernel.

Leaves out: licences, and the tools, of which only the stub is in the image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from locking import read_lock

if TYPE_CHECKING:
    from locking import Entry

TOOLS = "tools"


def sbom(entries: list[Entry], release: str) -> str:
    """The bill of a release, each file once."""
    files = {entry.sha256: entry for entry in entries if entry.group != TOOLS}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "operating-system", "name": "blindai", "version": release}},
        "components": [_component(entry) for entry in files.values()],
    }
    return json.dumps(bill, indent=1) + "\n"


def _component(entry: Entry) -> dict[str, object]:
    place = "deb/debian" if entry.kind == "deb" else "pypi"
    return {
        "type": "library",
        "name": entry.name,
        "version": entry.version,
        "purl": f"pkg:{place}/{quote(entry.name)}@{quote(entry.version, safe='')}",
        "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
    }


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--release", required=True, help="the version of the image")
    print(sbom(read_lock(Path(__file__).parent / "packages.lock"), parser.parse_args().release), end="")


if __name__ == "__main__":
    main()
