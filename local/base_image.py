"""Lambda's base image for Python where no image registry answers: made from the interpreter that runs this.

It has what SAM and the emulator expect of the public image: the runtime interface client and emulator, `/opt` on the
path, the same folders and environment. The C library is this machine's; good for behaviour, not for timings.
"""

import glob
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from local.errors import LocalError
from local.settings import ARCHITECTURE, OWN_RUNTIME, ROOT

# A shell and the few programs that SAM's Dockerfile and a curious reader run.
PROGRAMS = "sh cat cp ls mv rm mkdir chmod env true"
# What wheels may expect of any Linux (PEP 600), and what name look-ups load by name.
LIBRARIES = "libc libdl libgcc_s libm libnss_dns libnss_files libpthread libresolv librt libstdc++ libutil"
FOLDERS = "dev etc/ssl/certs opt proc root run sys tmp usr/bin usr/lib usr/lib64 usr/local/bin usr/sbin var/lang/bin"
LEFT_OUT = re.compile(
    r"test|tests|idlelib|tkinter|turtledemo|ensurepip|site-packages|dist-packages|__pycache__|config-3.*"
)
VERSION = OWN_RUNTIME.removeprefix("python")

BOOTSTRAP = f"""#!/bin/sh
export AWS_EXECUTION_ENV=AWS_Lambda_{OWN_RUNTIME}
export PYTHONPATH="/opt/python/lib/{OWN_RUNTIME}/site-packages:/opt/python:/var/runtime"
exec /var/lang/bin/{OWN_RUNTIME} -m awslambdaric "$_HANDLER"
"""
ENTRYPOINT = """#!/bin/sh
export _HANDLER="$1"
[ -n "$AWS_LAMBDA_RUNTIME_API" ] && exec /var/runtime/bootstrap
exec /usr/local/bin/aws-lambda-rie /var/runtime/bootstrap
"""
CHANGES = [
    "ENV LANG=en_US.UTF-8",
    "ENV TZ=:UTC",
    "ENV PATH=/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "ENV LD_LIBRARY_PATH=/var/lang/lib:/lib64:/usr/lib64:/var/task:/var/task/lib:/opt/lib",
    "ENV LAMBDA_TASK_ROOT=/var/task",
    "ENV LAMBDA_RUNTIME_DIR=/var/runtime",
    "WORKDIR /var/task",
    'ENTRYPOINT ["/lambda-entrypoint.sh"]',
]


def archive(folder: Path) -> Path:
    """The image's file system as a tar in this folder. Raises LocalError where that cannot be had."""
    if sys.platform != "linux" or shutil.which("ldd") is None:
        raise LocalError("no image registry answers, and a base image can only be made on Linux with glibc")
    target = folder / "image.tar"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch)
        _folders(root)
        _programs(root)
        _python(root)
        _runtime_interface(root)
        with tarfile.open(target, "w") as tar:
            tar.add(root, arcname=".", filter=_as_root)
    return target


def _folders(root: Path) -> None:
    for name in FOLDERS.split():
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        shutil.copy2(certificates, root / "etc/ssl/certs")


def _programs(root: Path) -> None:
    for name in PROGRAMS.split():
        program = shutil.which(name, path="/usr/bin:/bin")
        if program is not None:
            shutil.copy2(Path(program).resolve(), root / "usr/bin" / name)
            _copy_libraries(root, Path(program))


def _python(root: Path) -> None:
    """The interpreter, its library and what that links to."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    target = root / "var/lang/lib" / OWN_RUNTIME
    shutil.copytree(library, target, symlinks=True, ignore=lambda _, names: [n for n in names if LEFT_OUT.fullmatch(n)])
    for name in (OWN_RUNTIME, "python3"):
        shutil.copy2(interpreter, root / "var/lang/bin" / name)
    _copy_libraries(root, interpreter)
    for module in (target / "lib-dynload").glob("*.so"):
        _copy_libraries(root, module)
    for name in LIBRARIES.split():
        for path in (*glob.glob(f"/lib/*-linux-gnu/{name}.so*"), *glob.glob(f"/lib64/{name}.so*")):
            _copy_library(root, Path(path))


def _runtime_interface(root: Path) -> None:
    """Lambda's side of the container: the client from the lock, the emulator that SAM carries."""
    runtime = root / "var/runtime"
    lock = ROOT / "requirements" / "base-image.txt"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--root-user-action=ignore", "--only-binary=:all:", "--require-hashes", "--target", str(runtime)]
    answer = subprocess.run([*command, "-r", str(lock)], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise LocalError(f"the base image's packages cannot be installed: {answer.stderr.strip().splitlines()[-1]}")
    name = f"aws-lambda-rie-{ARCHITECTURE}"
    found = list((ROOT / ".venv-sam").glob(f"lib/python*/site-packages/samcli/local/rapid/{name}"))
    if not found:
        raise LocalError("SAM is not installed: run make setup")
    _script(root / "usr/local/bin/aws-lambda-rie", found[0].read_bytes())
    _script(runtime / "bootstrap", BOOTSTRAP.encode())
    _script(root / "lambda-entrypoint.sh", ENTRYPOINT.encode())


def _script(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)


def _copy_libraries(root: Path, binary: Path) -> None:
    listing = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(/\S+)\s+\(0x", listing):
        _copy_library(root, Path(path))


def _copy_library(root: Path, library: Path) -> None:
    """To where the loader looks for it: its own folder if that is the system's, else beside Python's."""
    folder = library.parent.resolve()
    inside = (
        "var/lang/lib" if not folder.is_relative_to("/usr/lib") and not folder.is_relative_to("/usr/lib64") else folder
    )
    target = root / str(inside).lstrip("/") / library.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), target)


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
