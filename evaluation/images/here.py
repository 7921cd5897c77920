"""Draws graphs in this process, with ComfyUI's own executor; models stay loaded from one image to the next."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from ..run import Job
from .graphs import graph_of, shared


class Silent:
    """What the executor needs of a server: nobody is listening."""

    client_id = None
    last_node_id = None

    def send_sync(self, *_args: Any) -> None:
        """Drops the message."""
        pass


class Executor:
    """A worker: a list of jobs in, `(key, image, what it took)` of each out.

    Args:
        workflows: the kept workflows that rows name, by their name.
        device: "cpu" or "cuda".
        models: a ComfyUI models folder, or "" for the host's own.
        threads: torch's processor threads; 0 leaves them as they are.
    """

    def __init__(self, workflows: dict[str, dict], device: str = "cpu", models: str = "", threads: int = 0) -> None:
        from ...tools.host_setup import prepare_host

        more = ("--models-directory", models) if models else ()
        prepare_host(*more, device=device, threads=threads or None)
        import comfy.k_diffusion.sampling
        import execution
        import folder_paths

        comfy.k_diffusion.sampling.trange = lambda steps, **_: range(steps)  # the run's own bar is enough
        self._workflows, self._device = workflows, device
        self._folder = tempfile.TemporaryDirectory(prefix="evaluation-")
        for set_folder in (folder_paths.set_output_directory, folder_paths.set_temp_directory):
            set_folder(self._folder.name)
        asyncio.run(_register())
        # The host's cache keeps what the next graph has in common, loaders above all.
        arguments = {"lru": 0, "ram": 2.0, "ram_inactive": 2.0}
        self._executor = execution.PromptExecutor(Silent(), execution.CacheType.CLASSIC, arguments)
        self._count = 0

    def do(self, jobs: list[Job]) -> list[tuple[str, Image.Image, dict]]:
        return [(job.key, *self._draw(graph_of(job, self._workflows.__getitem__))) for job in jobs]

    def _draw(self, graph: dict) -> tuple[Image.Image, dict]:
        import execution
        import torch

        from ...nodes.host.lmd.run_cache import OBJECT_RUNS

        OBJECT_RUNS.clear()
        self._count += 1
        name = f"evaluation-{self._count}"
        good, error, outputs, told = asyncio.run(execution.validate_prompt(name, graph, None))
        if not good:
            raise ValueError(f"ComfyUI refuses the graph: {(error or {}).get('message')} {_reasons(told)}")
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        self._executor.execute(graph, name, {}, outputs)
        seconds = time.perf_counter() - start
        if not self._executor.success:
            raise RuntimeError(_failure(self._executor.status_messages))
        image = self._image(graph, self._executor.history_result["outputs"])
        took = {"seconds": round(seconds, 3), "peak_mib": peak_mib(self._device), "on": describe(self._device)}
        cached = next((d["nodes"] for e, d in self._executor.status_messages if e == "execution_cached"), ())
        return image, took | {"shared": shared(graph, cached)}

    def _image(self, graph: dict, outputs: dict) -> Image.Image:
        """The first image of the last saving node; its file is removed."""
        files = [f for node in sorted(outputs, key=_saving(graph)) for f in outputs[node].get("images", [])]
        if not files:
            raise RuntimeError("the graph saved no image")
        path = Path(self._folder.name) / files[0]["subfolder"] / files[0]["filename"]
        with Image.open(path) as image:
            found = image.convert("RGB")
        for file in files:
            (Path(self._folder.name) / file["subfolder"] / file["filename"]).unlink(missing_ok=True)
        return found

    def close(self) -> None:
        self._folder.cleanup()


async def _register() -> None:
    """The host's nodes, its extra ones, and this pack's."""
    import nodes

    from ...nodes import NODES

    await nodes.init_builtin_extra_nodes()
    for node in NODES:
        nodes.NODE_CLASS_MAPPINGS.setdefault(node.GET_SCHEMA().node_id, node)


def _saving(graph: dict):
    """Saved images come before previews; of several, the one with the highest id."""

    def key(node: str) -> tuple:
        return graph[node]["class_type"] != "SaveImage", -int(node) if node.isdigit() else 0

    return key


def _reasons(told: dict) -> str:
    found = [f"{n['class_type']}: {e['message']} ({e['details']})" for n in told.values() for e in n["errors"]]
    return "; ".join(found)


def _failure(messages: list) -> str:
    for event, data in messages:
        if event == "execution_error":
            return f"{data['node_type']}: {data['exception_message'].strip()}"
    return "the graph did not finish"


def peak_mib(device: str) -> int:
    """The most memory in MiB: of a GPU's last image, or of this process on a CPU."""
    import resource

    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def describe(device: str) -> str:
    """Versions and device, as they stand beside a number."""
    import comfyui_version
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return f"torch {torch.__version__}, ComfyUI {comfyui_version.__version__}, {name}"
