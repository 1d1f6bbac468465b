"""Opens the notebooks in JupyterLab beside a simulated server: `make notebooks`, or the container of this folder.

Both end together. JupyterLab asks for a token, which stands in the address that it prints.
Each notebook finds the server in BLINDAI_URL, and `blindai` on its path.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STOP_S = 15


def main() -> int:
    """Serve until one of the two ends; returns JupyterLab's exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    arguments = _arguments()
    server = _start_server(arguments.server_port)
    try:
        return _run_lab(arguments, _url_when_ready(server))
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(server)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=HERE.parent, help="what JupyterLab shows; here: the repository")
    parser.add_argument("--host", default="127.0.0.1", help="where JupyterLab listens")
    parser.add_argument("--port", type=int, default=8888, help="JupyterLab's port; another if that is taken")
    parser.add_argument("--server-port", type=int, default=50051, help="the simulated server's; 0 takes a free one")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    return parser.parse_args()


def _start_server(port: int) -> subprocess.Popen[str]:
    """On loopback only, whatever JupyterLab listens on."""
    listeners = ("--port", str(port), "--grpc-port", "0", "--metrics-port", "0")
    command = (sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", *listeners)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _url_when_ready(server: subprocess.Popen[str]) -> str:
    said = server.stdout.readline() if server.stdout else ""
    word, _, url = said.strip().partition(" ")
    if word != "ready":
        raise SystemExit("the simulated server did not start; is its port taken? try --server-port 0")
    print(f"simulated server: {url}", flush=True)
    return url


def _run_lab(arguments: argparse.Namespace, url: str) -> int:
    first = HERE.relative_to(arguments.folder.resolve()) / "introduction.ipynb"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.ip={arguments.host}",
        f"--ServerApp.port={arguments.port}",
        f"--ServerApp.root_dir={arguments.folder.resolve()}",
        f"--LabApp.default_url=/lab/tree/{first.as_posix()}",
        "--LabApp.extension_manager=readonly",  # it would ask PyPI for its list
        *(["--no-browser"] if arguments.no_browser else []),
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    lab = subprocess.Popen(command, env=os.environ | {"BLINDAI_URL": url, "PATH": path})
    try:
        return lab.wait()
    finally:
        _stop(lab)


def _stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
