"""Lanes on Ray: actors that hold a model each, on this machine or on a cluster. `pip install ray` where it is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .lanes import ROOT, Spec
from .spread import LaneDied

KEPT = ("COMFYUI_PATH", "ELLA_LMD_HOME", "OMP_NUM_THREADS")
LEFT_OUT = [".git", "output", "tests", "web", "workflows", "docs", "locales"]


def connect(address: str = "") -> Any:
    """Ray itself, connected: to a cluster at `address` ("auto" for the one that this machine belongs to), else local."""
    try:
        import ray
    except ImportError:
        raise ValueError("--ray needs the package ray: pip install ray in this environment") from None
    if ray.is_initialized():
        return ray
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment: dict[str, Any] = {"env_vars": kept}
    if address:  # other machines get the checkout from this one
        environment |= {"working_dir": str(ROOT), "excludes": LEFT_OUT}
    ray.init(address=address or None, runtime_env=environment, include_dashboard=False, log_to_driver=False)
    return ray


class RayLane:
    """One actor. A dead one is replaced; its job goes to whichever actor is free."""

    def __init__(self, ray: Any, number: int, spec: Spec, gpus: float = 0.0) -> None:
        self.name, self._ray, self._spec, self._gpus = f"ray actor {number}", ray, spec, gpus
        self._actor: Any = None

    def _start(self) -> Any:
        place, arguments, root = self._spec.place, self._spec.arguments, str(ROOT)

        class Holder:  # sent by value, since the other side can't import the pack yet
            def __init__(self) -> None:
                import importlib.util as tools

                own = Path(root) if (Path(root) / "tools" / "pack.py").is_file() else Path.cwd()
                found = tools.spec_from_file_location("ella_lmd_pack", own / "tools" / "pack.py")
                pack = tools.module_from_spec(found)
                found.loader.exec_module(pack)
                pack.register()
                self.worker: Any = None

            def pid(self) -> int:
                return os.getpid()

            def do(self, job: bytes) -> bytes:
                import pickle

                from ella_lmd.evaluation.lanes import Spec

                self.worker = self.worker or Spec(place, arguments).build()
                return pickle.dumps(self.worker.do(pickle.loads(job)))

        return self._ray.remote(Holder).options(num_cpus=1, num_gpus=self._gpus).remote()

    def do(self, job: Any) -> Any:
        import pickle

        errors = self._ray.exceptions
        try:
            self._actor = self._actor or self._start()
            return pickle.loads(self._ray.get(self._actor.do.remote(pickle.dumps(job))))
        except (errors.RayActorError, errors.RaySystemError, errors.ObjectLostError, errors.NodeDiedError) as error:
            raise LaneDied(str(error).splitlines()[0]) from None
        except errors.RayTaskError as error:
            raise RuntimeError(str(error.cause)) from None

    @property
    def pid(self) -> int | None:
        """The process of its actor, on whichever machine."""
        return self._ray.get(self._actor.pid.remote()) if self._actor else None

    def revive(self) -> bool:
        self._actor = None
        return True

    def close(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None
