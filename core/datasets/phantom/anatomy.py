"""What varies in drawn phantoms: the anatomy of a patient, and the view of one image.

Lengths are in the patient's frame: x runs from -1 (image left, the patient's right side) to 1, y
from -1 (top) to 1. `View` moves that frame over the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in every image of a patient (lengths in frame units)."""

    chest_width: float
    chest_roundness: float
    apex_y: float
    dome_y: float
    dome_difference: float
    dome_depth: float
    heart_width: float
    heart_height: float
    heart_x: float
    knob: float
    mediastinum: float
    rib_spacing: float
    rib_phase: float
    rib_thickness: float
    rib_density: float
    rib_drop: float
    rib_slope: float
    clavicle_y: float
    clavicle_rise: float
    wall: float
    breast: float
    breast_y: float
    breast_x: float
    stomach_gas: float
    scoliosis: float
    vessel_density: float
    hilum: float
    granuloma: tuple[float, float, float, float]
    vessels: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class View:
    """Pose, breath and exposure of one image."""

    shift_x: float
    shift_y: float
    angle: float
    scale: float
    turn: float
    breath: float
    scapula: tuple[float, float]
    low: float
    high: float
    gamma: float
    gradient_x: float
    gradient_y: float
    noise: float
    blur: float
    fold: tuple[float, float, float]
    band: tuple[float, float, float, float]
    haze: tuple[float, float, float, float, float]
    electrodes: tuple[tuple[float, float], ...]


def draw_patient(rng: np.random.Generator) -> Anatomy:
    """Draw a patient's anatomy. The class of the patient plays no part in it."""
    u = rng.uniform
    female = rng.random() < 0.5
    granuloma = (u(-0.5, 0.5), u(-0.5, 0.2), u(0.008, 0.018), u(0.1, 0.3) * (rng.random() < 0.25))
    return Anatomy(
        chest_width=u(0.66, 0.78),
        chest_roundness=u(1.9, 2.5),
        apex_y=u(-0.86, -0.76),
        dome_y=u(0.50, 0.64),
        dome_difference=rng.normal(0.04, 0.035),
        dome_depth=u(0.17, 0.27),
        heart_width=u(0.29, 0.39),
        heart_height=u(0.28, 0.37),
        heart_x=u(0.09, 0.15),
        knob=u(0.06, 0.11),
        mediastinum=u(0.13, 0.17),
        rib_spacing=u(0.145, 0.175),
        rib_phase=u(0, 1),
        rib_thickness=u(0.026, 0.036),
        rib_density=u(0.05, 0.12),
        rib_drop=u(0.24, 0.40),
        rib_slope=u(0.30, 0.50),
        clavicle_y=u(-0.64, -0.56),
        clavicle_rise=u(0.04, 0.16),
        wall=u(0.07, 0.20),
        breast=u(0.05, 0.17) if female else u(0.0, 0.02),
        breast_y=u(0.18, 0.38),
        breast_x=u(0.36, 0.48),
        stomach_gas=u(0.1, 0.3) * (rng.random() < 0.6),
        scoliosis=rng.normal(0, 0.025),
        vessel_density=u(0.10, 0.20),
        hilum=u(0.10, 0.20),
        granuloma=granuloma,
        vessels=_grow_vessels(rng),
    )


def draw_view(rng: np.random.Generator) -> View:
    """Draw the pose, exposure and everyday disturbances of one image, whatever its class."""
    u, normal = rng.uniform, rng.normal
    haze_on = rng.random() < 0.5
    n_electrodes = int(rng.integers(2, 5)) if rng.random() < 0.2 else 0
    low, gamma = u(0.0, 0.1), float(np.exp(normal(0.1, 0.2)))
    return View(
        shift_x=normal(0, 0.05),
        shift_y=normal(0.02, 0.05),
        angle=normal(0, 0.05),
        scale=u(0.97, 1.2),
        turn=normal(0, 0.4),
        breath=abs(normal(0, 0.6)),
        scapula=(u(-0.03, 0.2), u(-0.03, 0.2)),
        low=low,
        high=u(0.95, 1.2),
        gamma=gamma,
        gradient_x=normal(0, 0.07),
        gradient_y=normal(0, 0.05),
        noise=u(0.008, 0.026),
        blur=u(0.0, 0.9),
        fold=(u(-0.8, 0.8), u(-0.4, 0.4), u(0.02, 0.06) * (rng.random() < 0.25)),
        band=(
            u(0.2, 0.5) * (1 if u(-1, 1) > 0 else -1),
            u(0.15, 0.4),
            normal(0, 0.3),
            u(0.03, 0.12),
        )
        if rng.random() < 0.35
        else (0.0, 0.0, 0.0, 0.0),
        # An overlying soft-tissue shadow: wide and edgeless, on either side and at any height.
        haze=(u(-0.6, 0.6), u(-0.5, 0.5), u(0.15, 0.4), u(0.15, 0.4), u(0.02, 0.1) * haze_on),
        electrodes=tuple((u(-0.7, 0.7), u(-0.5, 0.6)) for _ in range(n_electrodes)),
    )


def _grow_vessels(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Branches (n, 3, 2), three points x y each, and widths (n,) of the trees from both hila."""
    segments, widths = [], []
    for sign in (-1, 1):
        hilum_y = -0.06 if sign > 0 else -0.02
        # Lower-zone vessels are wider than upper-zone ones in an upright chest.
        stems = [
            (-1.2, 0.024),
            (-0.75, 0.018),
            (-0.25, 0.018),
            (0.25, 0.024),
            (0.65, 0.028),
            (1.1, 0.03),
        ]
        stack = [
            (0.16 * sign, hilum_y + 0.08 * angle, angle + rng.normal(0, 0.15), width, 0)
            for angle, width in stems
        ]
        while stack:
            x, y, angle, width, depth = stack.pop()
            length = rng.uniform(0.07, 0.14)
            path = [x, y]
            for _ in range(2):
                angle += rng.normal(0, 0.16)
                x += sign * length / 2 * np.cos(angle)
                y += length / 2 * np.sin(angle) * 1.15
                path += [x, y]
            segments.append(path)
            widths.append(width)
            if depth < 4:
                fork = rng.uniform(0.25, 0.5)
                stack.append((x, y, angle - fork * rng.uniform(0.3, 1), width * 0.78, depth + 1))
                if depth < 3:
                    stack.append((x, y, angle + fork, width * 0.66, depth + 1))
    order = np.argsort(widths, kind="stable")
    paths = np.asarray(segments, np.float32).reshape(-1, 3, 2)
    return paths[order], np.asarray(widths, np.float32)[order]
