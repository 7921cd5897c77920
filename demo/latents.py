"""What the four latent channels of the demo model mean, as a formula on pictures.

A learned latent space costs training time and is arbitrary; this one is neither. Each 8x8 block of pixels becomes its
mean colour on three whitened axes (light, warm against cold, green against magenta) and how much edge it holds. The
denoiser is trained on these numbers themselves; the encoder learns to reproduce them, the decoder to draw from them.
"""

from __future__ import annotations

import torch

BLOCK = 8
MEAN = (0.112, 0.200, 0.151)
"""Mean of the block colours of random scenes, RGB in -1..1."""
AXES = (
    (0.7580, 0.7002, 0.5702),
    (1.5312, 0.0676, -2.1185),
    (-2.2330, 3.6371, -1.4978),
)
"""Principal axes of those colours, each divided by its standard deviation, so that the channels have unit variance."""
EDGE_MEAN, EDGE_DEVIATION = 0.145, 0.18
"""Mean and standard deviation of the square root of the deviation of light within a block."""


def of_images(images: torch.Tensor) -> torch.Tensor:
    """Latents `[B, 4, h/8, w/8]` of unit variance for pictures `[B, 3, h, w]` in -1..1; h and w multiples of 8."""
    mean = torch.nn.functional.avg_pool2d(images, BLOCK)
    shifted = mean - mean.new_tensor(MEAN).view(3, 1, 1)
    colour = torch.einsum("ck,bkhw->bchw", shifted.new_tensor(AXES), shifted)
    light = images.mean(1, keepdim=True)
    variance = (
        torch.nn.functional.avg_pool2d(light.square(), BLOCK) - torch.nn.functional.avg_pool2d(light, BLOCK).square()
    )
    edge = (variance.clamp_min(0).pow(0.25) - EDGE_MEAN) / EDGE_DEVIATION
    return torch.cat([colour, edge], 1)


def rgb_factors() -> tuple[torch.Tensor, torch.Tensor]:
    """`factors` [4, 3] and `bias` [3]: `latents @ factors + bias` is the mean RGB of a block in -1..1."""
    back = torch.linalg.inv(torch.tensor(AXES))
    return torch.cat([back.T, torch.zeros(1, 3)]), torch.tensor(MEAN)


def block_colours(latents: torch.Tensor) -> torch.Tensor:
    """Mean RGB `[B, 3, h, w]` in -1..1 of every block that latents `[B, 4, h, w]` describe."""
    factors, bias = rgb_factors()
    return torch.einsum("ck,bchw->bkhw", factors, latents) + bias.view(3, 1, 1)
