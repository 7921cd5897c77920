"""What the stages of the training share: a checkpoint that a stopped run goes on from, averaged weights, a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm


class Resumable:
    """A module and its optimiser, from where a run stopped: weights, their average (EMA), steps and seconds.

    All of it is kept in `path`; the losses of `log` go beside it, as csv rows of step, smoothed loss and seconds.
    """

    def __init__(self, path: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer, decay: float) -> None:
        self.path, self.module, self.optimiser, self.decay = path, module, optimiser, decay
        self.average = {k: v.clone() for k, v in module.state_dict().items()}
        self.step, self.smooth, seconds = 0, None, 0.0
        if path.exists():
            saved = torch.load(path)
            module.load_state_dict(saved["model"])
            optimiser.load_state_dict(saved["optimiser"])
            self.average, self.step, seconds = saved["average"], saved["step"], saved.get("seconds", 0.0)
        self.start = time.monotonic() - seconds

    def steps(self, total: int) -> tqdm:
        """The steps that are still to do, of `total`, with a progress bar."""
        self.total = total
        self.bar = tqdm(range(self.step, total), initial=self.step, total=total, desc=self.path.stem, mininterval=5)
        return self.bar

    def learn(self, loss: torch.Tensor, exchange: Callable[[torch.nn.Module], None] | None = None) -> None:
        """One step down the gradient of `loss`, clipped to length 1; `exchange` sees the gradients before that."""
        self.optimiser.zero_grad()
        loss.backward()
        if exchange:
            exchange(self.module)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1

    def average_in(self) -> None:
        """Bring the average up to the weights, faster while the run is young."""
        decay = min(self.decay, self.step / (self.step + 9))
        for name, value in self.module.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def log(self, loss: float) -> None:
        """Show the smoothed loss; every 50th step writes it down."""
        self.smooth = loss if self.smooth is None else 0.98 * self.smooth + 0.02 * loss
        self.bar.set_postfix(loss=f"{self.smooth:.4f}", refresh=False)
        if self.step % 50 == 0:
            with self.path.with_suffix(".csv").open("a") as rows:
                rows.write(f"{self.step},{self.smooth:.5f},{self.seconds:.0f}\n")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def due(self, every: int) -> bool:
        """Is it an `every`-th step or the last one?"""
        return self.step % every == 0 or self.step == self.total

    def save(self) -> None:
        """Write the checkpoint; a run that is killed meanwhile leaves the former one whole."""
        state = {"model": self.module.state_dict(), "optimiser": self.optimiser.state_dict(), "average": self.average}
        torch.save({**state, "step": self.step, "seconds": self.seconds}, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").replace(self.path)
