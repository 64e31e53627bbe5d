"""From linear radiance to an 8-bit picture: lens, white balance, exposure, noise, gamma."""

from __future__ import annotations

import numpy as np

from cliptex.playroom.world import Sensor


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Separable 3-tap blur of (3, H, W) with the variance of a Gaussian of `sigma` pixels."""
    side = np.float32(min(0.5 * sigma * sigma, 0.33))
    if side < 0.01:
        return image
    for axis in (1, 2):
        padded = np.pad(image, [(0, 0)] + [(1, 1) if a == axis else (0, 0) for a in (1, 2)], "edge")
        lower = padded[:, :-2] if axis == 1 else padded[:, :, :-2]
        upper = padded[:, 2:] if axis == 1 else padded[:, :, 2:]
        image = image * (1 - 2 * side) + side * (lower + upper)
    return image


def expose(radiance: np.ndarray, sensor: Sensor) -> np.ndarray:
    """(3, H, W) linear radiance to (H, W, 3) uint8 sRGB."""
    _, height, width = radiance.shape
    image = _blurred(radiance, sensor.blur * height / 128)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)
    fall = 1 - sensor.vignette * 0.5 * (x[None, :] ** 2 + y[:, None] ** 2)
    gain = np.array(sensor.balance, np.float32) * np.float32(sensor.exposure)
    image = image * gain[:, None, None] * fall
    image = np.maximum(image, 0) ** np.float32(1 / 2.2)
    # a soft shoulder keeps bright walls from clipping to flat white
    image = np.where(image > 0.8, 0.8 + 0.2 * np.tanh((image - 0.8) / 0.2), image)
    rng = np.random.Generator(np.random.PCG64(sensor.seed))
    image += sensor.noise * rng.standard_normal(image.shape, np.float32)
    return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()
