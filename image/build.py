"""`make image`: locked packages and this source tree → UKI, verified root and one bootable disk, bit for bit the same again.

    packages → root tree → EROFS → dm-verity ─ root hash ─→ command line ┐
    kernel's package, guest/initrd.sh and its tools → initrd ────────────┴→ UKI → ESP ┐
                                                  root and hash tree ─────────────────┴→ GPT disk

Needs root (a chroot for the tools), dpkg-deb and unshare. Leaves out: signatures for Secure Boot, reference values (predict.py).
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import shutil
import sys
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archive import fetch
from locking import Entry, ImageError, read_lock
from trees import Tools, make_tools, unpack_debs, unpack_wheels

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
EPOCH = 1767225600  # 2026-01-01: every time in the image
SALT = hashlib.sha256(b"blindai image").hexdigest()  # public: it only keeps others' tables of hashes from being of use
UUIDS = {
    "root": "6f9f0d0a-8a3e-4c0f-9d5e-0b1a2c3d4e01",
    "hash": "6f9f0d0a-8a3e-4c0f-9d5e-0b1a2c3d4e02",
    "esp": "6f9f0d0a-8a3e-4c0f-9d5e-0b1a2c3d4e03",
    "disk": "6f9f0d0a-8a3e-4c0f-9d5e-0b1a2c3d4e04",
}
# no_timer_check: a starved emulator looks like broken hardware, which Linux would not boot on.
COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 oops=panic no_timer_check init_on_alloc=1 slab_nomerge lockdown=integrity roothash={}"
)
MODULES = (
    *("virtio_blk", "virtio_net", "virtio_rng", "nvme", "dm_verity", "erofs", "ext4"),
    *("tpm_crb", "tpm_tis", "sev_guest", "tdx_guest", "nsm"),
)
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
SITE = "usr/lib/python3/dist-packages"  # in the path of Debian's Python
# Not needed to serve. What could start or make programs goes first.
LEFT_OUT = (
    "usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/bug", "usr/share/applications",
    "usr/share/pixmaps", "usr/share/binfmts", "usr/lib/python3.13/pdb.py", "usr/lib/python3.13/pydoc.py",
    "usr/lib/python3.13/pydoc_data", "usr/lib/python3.13/ensurepip", "usr/lib/python3.13/idlelib",
    "usr/lib/python3.13/lib2to3", "usr/lib/python3.13/venv", "usr/lib/x86_64-linux-gnu/gconv", "etc", "var",
)  # fmt: skip
FORBIDDEN = (
    "sh",
    "bash",
    "dash",
    "busybox",
    "perl",
    "ssh",
    "sshd",
    "apt",
    "apt-get",
    "dpkg",
    "pip",
    "pip3",
    "gdb",
    "su",
    "sudo",
)
SECTOR, MEBI = 512, 1 << 20
ESP_BYTES = 64 * MEBI


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build: where it works, and with what.

    Attributes:
        out: `root.erofs`, `root.verity`, `initrd.zst`, `uki.efi`, `disk.img` and SHA256SUMS come here.
    """

    tools: Tools
    entries: list[Entry]
    cache: Path
    out: Path

    def make(self) -> None:
        """Everything, in order."""
        with _timed("root"):
            self._root()
        with _timed("hash tree"):
            root_hash = self._verity()
        with _timed("initrd"):
            version = self._initrd()
        with _timed("unified kernel image"):
            self._uki(version, root_hash)
        with _timed("disk"):
            self._disk()
        names = ("root.erofs", "root.verity", "initrd.zst", "uki.efi", "disk.img")
        sums = [f"{digest(self.out / name)}  {name}\n" for name in names]
        (self.out / "SHA256SUMS").write_text("".join(sums))

    def _root(self) -> None:
        root = self.out / "root"
        unpack_debs(self.entries, "root", self.cache, root)
        for name in LEFT_OUT:
            _remove(root / name)
        unpack_wheels(self.entries, self.cache, root / SITE)
        _copy_source(HERE.parent / "src/blindai", root / SITE / "blindai")
        (root / "usr/lib/blindai").mkdir()
        shutil.copy(HERE / "guest/start.py", root / "usr/lib/blindai/start.py")
        for name in ("proc", "sys", "dev", "run", "tmp", "etc", "models"):
            (root / name).mkdir()
        (root / "etc/passwd").write_text("root:x:0:0::/:/none\nblindai:x:10001:10001::/:/none\n")
        (root / "etc/group").write_text("root:x:0:\nblindai:x:10001:\n")
        (root / "usr/lib/os-release").write_text(self._os_release())
        _refuse_forbidden(root)
        self._run("python3", "-m", "compileall", "-q", "-j1", "--invalidation-mode=unchecked-hash", "-s/inside/root", "-p/",
                  "root/usr/lib/python3.13", f"root/{SITE}", "-x", r"lib2to3|bad_|test/")  # fmt: skip
        _settle(root)
        self._run(
            "mkfs.erofs", "--quiet", "-zlz4hc", f"-T{EPOCH}", f"-U{UUIDS['root']}", "--all-root", "root.erofs", "root"
        )

    def _verity(self) -> str:
        (self.out / "root.verity").unlink(missing_ok=True)
        said = self._run(
            "veritysetup", "format", f"--salt={SALT}", f"--uuid={UUIDS['hash']}", "root.erofs", "root.verity"
        )
        return next(line.split()[-1] for line in said.splitlines() if line.startswith("Root hash:"))

    def _initrd(self) -> str:
        kernel, tree = self.out / "kernel", self.out / "initrd"
        unpack_debs(self.entries, "kernel", self.cache, kernel)
        unpack_debs(self.entries, "initrd", self.cache, tree)
        version = next((kernel / "usr/lib/modules").iterdir()).name
        for name in ("usr/share", "etc", "var", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/engines-3"):
            _remove(tree / name)
        for name in ("proc", "sys", "dev", "root", "run", "modules", "tmp"):
            (tree / name).mkdir()
        self._modules(version, kernel, tree / "modules")
        for name, target in (("initrd.sh", "init"), ("address.sh", "address")):
            shutil.copy(HERE / "guest" / name, tree / target)
            (tree / target).chmod(0o755)
        _settle(tree)
        self._run("sh", "-ec", f"cd initrd; find . -exec touch -h -d @{EPOCH} {{}} +; find . | LC_ALL=C sort | "
                  "cpio --quiet --reproducible -R 0:0 -H newc -o | zstd -q -19 -T1 -f -o ../initrd.zst")  # fmt: skip
        return version

    def _modules(self, version: str, kernel: Path, target: Path) -> None:
        """The drivers with what they need, each after what it needs, uncompressed: the initrd is compressed whole."""
        self._run("depmod", "-b", "kernel", version)
        order: dict[str, None] = {}
        for module in MODULES:
            shown = self._run("modprobe", "-d", "/inside/kernel", "-S", version, "--show-depends", module)
            order |= dict.fromkeys(line.split()[1] for line in shown.splitlines() if line.startswith("insmod"))
        names = []
        for path in order:
            source = kernel / path.removeprefix("/inside/kernel/")
            names.append(source.name.removesuffix(".xz"))
            data = source.read_bytes()
            (target / names[-1]).write_bytes(lzma.decompress(data) if source.suffix == ".xz" else data)
        (target / "order").write_text("".join(f"{name}\n" for name in names))

    def _uki(self, version: str, root_hash: str) -> None:
        (self.out / "cmdline").write_text(COMMAND_LINE.format(root_hash))
        (self.out / "osrel").write_text(self._os_release())
        self._run("ukify", "build", f"--linux=kernel/boot/vmlinuz-{version}", "--initrd=initrd.zst", "--cmdline=@cmdline",
                  "--os-release=@osrel", f"--uname={version}", f"--stub={STUB}", "--output=uki.efi")  # fmt: skip

    def _disk(self) -> None:
        self._run("sh", "-ec", f"rm -f esp.img; truncate -s {ESP_BYTES} esp.img; mkfs.vfat -F 32 -i b11da100 --invariant esp.img; "
                  f"touch -d @{EPOCH} uki.efi; mmd -i esp.img ::/EFI ::/EFI/BOOT; mcopy -m -i esp.img uki.efi ::/EFI/BOOT/BOOTX64.EFI")  # fmt: skip
        files = ("esp.img", "root.erofs", "root.verity")
        starts, end = [], MEBI
        for name in files:
            starts.append(end)
            end += -(-(self.out / name).stat().st_size // MEBI) * MEBI
        sizes = [after - start for start, after in zip(starts, [*starts[1:], end], strict=True)]
        rows = zip(starts, sizes, ("U", "L", "L"), ("esp", "root", "hash"), strict=True)
        table = f"label: gpt\nlabel-id: {UUIDS['disk']}\nunit: sectors\n" + "".join(
            f"start={start // SECTOR}, size={size // SECTOR}, type={kind}, uuid={UUIDS[name]}, name=blindai-{name}\n"
            for start, size, kind, name in rows
        )
        (self.out / "table").write_text(table)
        self._run("sh", "-ec", f"rm -f disk.img; truncate -s {end + MEBI} disk.img; sfdisk -q disk.img < table")
        with (self.out / "disk.img").open("r+b") as disk:
            for start, name in zip(starts, files, strict=True):
                disk.seek(start)
                with (self.out / name).open("rb") as part:
                    shutil.copyfileobj(part, disk, MEBI)

    def _run(self, *arguments: str) -> str:
        return self.tools.run(*arguments, environment={"SOURCE_DATE_EPOCH": str(EPOCH)})

    @staticmethod
    def _os_release() -> str:
        version = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]["version"]
        return f'ID=blindai\nNAME="BlindAI"\nVERSION_ID={version}\n'


@contextmanager
def _timed(step: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{step}: {time.monotonic() - began:.0f} s", flush=True)


def _copy_source(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_forbidden(root: Path) -> None:
    """No shell, no SSH, no package manager, no debugger.

    Raises:
        ImageError: one of them is there.
    """
    found = sorted(path.name for path in root.glob("usr/*bin/*") if path.name in FORBIDDEN)
    if found:
        raise ImageError(f"the root has {', '.join(found)}")


def _settle(tree: Path) -> None:
    """Modes that do not depend on the umask of who cloned the source; nothing is set-uid, nothing writable by others."""
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Build into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the cache, the tools and the image")
    parser.add_argument("--out", default="build", help="the image's folder in it [default: build]")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    try:
        entries = read_lock(HERE / "packages.lock")
        out = folder / arguments.out
        with _timed("packages"):
            fetch(entries, folder / "cache", tomllib.loads((HERE / "packages.toml").read_text())["python"])
        with _timed("tools"):
            tools = make_tools(entries, folder / "cache", folder / "tools", out)
        Build(tools=tools, entries=entries, cache=folder / "cache", out=out).make()
        print((out / "SHA256SUMS").read_text(), end="")
    except ImageError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
