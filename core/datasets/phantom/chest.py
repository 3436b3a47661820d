"""The healthy chest of a drawn phantom: a patient in one view, as attenuation.

Attenuation is in arbitrary units, where 0 is air and about 1 is the mediastinum; structures add up
as they do in projection. Coordinates are those of `core.datasets.phantom.anatomy`. The landmarks
(right dome above the left, cardiothoracic ratio near one half, aortic knob, hila, posterior ribs
falling to the side and anterior ribs to the middle) follow the usual description of the frontal
view, e.g. L. R. Goodman, Felson's Principles of Chest Roentgenology.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from core.datasets.phantom.anatomy import Anatomy, View

LUT_STEPS = 2048
LUT_EDGE = 1.8
LUT_Y = np.linspace(-LUT_EDGE, LUT_EDGE, LUT_STEPS, dtype=np.float32)


@dataclass(frozen=True)
class Frame:
    """The healthy radiograph before exposure; every array is float32 (size, size).

    attenuation: arbitrary units. air: 0..1, how much aerated lung a ray crosses. x, y: patient
    coordinates of each pixel. side: |x| over the half width of the lung field (1 at the pleura).
    dome: y of the diaphragm below each pixel. lungs: bool, the lung fields, also behind the heart.
    """

    attenuation: np.ndarray
    air: np.ndarray
    lungs: np.ndarray
    x: np.ndarray
    y: np.ndarray
    side: np.ndarray
    dome: np.ndarray
    pixel: float


def project(view: View, points: np.ndarray, size_px: int) -> np.ndarray:
    """Patient coordinates (..., 2) -> pixel coordinates (..., 2)."""
    cos, sin = np.cos(view.angle), np.sin(view.angle)
    x = view.scale * (cos * points[..., 0] - sin * points[..., 1]) + view.shift_x
    y = view.scale * (sin * points[..., 0] + cos * points[..., 1]) + view.shift_y
    return (np.stack([x, y], axis=-1) + 1) * (size_px / 2) - 0.5


def _grid(view: View, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    line = ((np.arange(size_px, dtype=np.float32) + 0.5) * (2 / size_px) - 1).astype(np.float32)
    px, py = line[None, :] - np.float32(view.shift_x), line[:, None] - np.float32(view.shift_y)
    cos = np.float32(np.cos(view.angle) / view.scale)
    sin = np.float32(np.sin(view.angle) / view.scale)
    return cos * px + sin * py, cos * py - sin * px


def _step(margin: np.ndarray, width: float) -> np.ndarray:
    """Smooth 0..1 step where margin crosses 0, width being the distance over which it rises."""
    t = margin * np.float32(1 / width)
    t += np.float32(0.5)
    np.clip(t, 0, 1, out=t)
    rounded = np.float32(-2) * t
    rounded += np.float32(3)
    rounded *= t
    rounded *= t
    return rounded


def _bump(x: np.ndarray, y: np.ndarray, rx: float, ry: float) -> np.ndarray:
    """A blob that is 1 in its centre and reaches 0 at the ellipse of radii 1.6 rx, 1.6 ry."""
    r = x * np.float32(1 / (1.6 * rx))
    r *= -r
    across = y * np.float32(1 / (1.6 * ry))
    across *= across
    r -= across
    r += np.float32(1)
    np.maximum(r, 0, out=r)
    r *= r
    return r


def _tube(distance: np.ndarray, radius: float) -> np.ndarray:
    """A rib-like tube across its axis: 0 outside, about 1 inside, brighter at its cortical rims."""
    r = distance * np.float32(1 / radius)
    r *= r
    wall = np.float32(1.3) - r
    wall *= np.float32(2.2)
    np.clip(wall, 0, 1, out=wall)
    np.minimum(r, 1, out=r)
    r *= r
    r *= np.float32(0.4)
    r += np.float32(0.7)
    wall *= r
    return wall


def draw_frame(patient: Anatomy, view: View, size_px: int) -> Frame:
    """Draw the healthy chest of a patient in one view."""
    p = patient
    # glibc hands the pages of freed arrays back and faults them in anew; freeing one large block
    # raises the size from which it does so (mallopt(3), M_MMAP_THRESHOLD): half as fast again.
    np.empty(1 << 24, np.uint8)
    x, y = _grid(view, size_px)
    pixel = 2 / size_px / view.scale
    soft = max(0.012, pixel)
    index = ((y + LUT_EDGE) * ((LUT_STEPS - 1) / (2 * LUT_EDGE))).astype(np.int32)
    np.clip(index, 0, LUT_STEPS - 1, out=index)

    def by_height(values: np.ndarray) -> np.ndarray:
        return np.take(np.asarray(values, np.float32), index)

    ax = np.abs(x)
    sign = np.sign(x)
    # A rotated patient: front and back structures move apart, and one lung field narrows.
    front, back = x - 0.05 * view.turn, x + 0.03 * view.turn
    bend = by_height(p.scoliosis * np.sin(2.2 * LUT_Y))
    back = back - bend

    # Rib cage and lung fields.
    rise = np.clip((0.35 - LUT_Y) / (0.35 - p.apex_y), 0, 1)
    below = np.clip(LUT_Y - 0.35, 0, None)
    half_width = p.chest_width * (1 - rise**p.chest_roundness) ** 0.55 * (1 - 0.12 * below)
    half_width = np.maximum(half_width, 1e-3)
    cage = by_height(half_width)
    cage *= 1 + np.float32(0.035 * view.turn) * sign
    side = ax / cage
    lateral = cage - ax

    lift = 0.10 * view.breath
    out = (ax - 0.30) / (p.chest_width - 0.30)
    # The dome falls steeply to the costophrenic angle and gently to the midline.
    dome = np.where(out > 0, np.float32(p.dome_depth), np.float32(0.10)) * out * out
    dome += np.float32(p.dome_y - lift) + np.float32(0.5 * p.dome_difference) * np.clip(
        8 * x, -1, 1
    )
    above_dome = dome - y

    edge = by_height(p.mediastinum * 0.62 + 0.02 * np.cos(3 * LUT_Y))
    medial = np.where(sign < 0, -back, front) - edge
    wall_fall = np.clip(lateral * np.float32(1 / 0.22), 0, 1)
    wall_fall = np.sqrt(wall_fall * (2 - wall_fall))
    field = _step(above_dome, soft * 1.6) * _step(medial, 0.05)
    air = field * wall_fall
    air *= by_height(0.72 + 0.28 * np.clip((LUT_Y - p.apex_y) / 0.5, 0, 1))

    # Soft tissue: trunk, shoulders, neck.
    shoulder = np.where(ax < 0.2, -1.4 + 2 * ax, -1.02 + 0.24 * ax).astype(np.float32)
    flare = np.clip((-0.1 - LUT_Y) / 0.65, 0, 1)
    trunk = by_height(0.9 + 0.75 * flare * flare * (3 - 2 * flare))
    trunk += np.float32(p.wall + p.chest_width - 0.88)
    inside = _step(y - shoulder, 0.06)
    depth = np.clip((trunk - ax) * np.float32(1 / 0.5), 0, 1)
    depth = np.sqrt(depth * (2 - depth))
    body = inside * depth
    abdomen = _step(-above_dome, 0.04)
    tissue = by_height(0.50 + 0.10 * np.clip(LUT_Y + 0.4, 0, 1) + 0.3 * (p.wall - 0.13))
    tissue += 0.14 * abdomen
    # In the lungs the wall in front and behind stays; it is thicker in the lower zones.
    a = body * tissue
    a -= air * (0.38 - 0.04 * view.breath * by_height(np.clip(LUT_Y + 0.2, 0, 1)))

    # Mediastinum, spine, trachea.
    column = _step(by_height(0.085 + 0.012 * np.cos(LUT_Y * 40)) - np.abs(back), 0.03)
    a += column * by_height(0.06 + 0.025 * np.cos(LUT_Y * 40 + 1.0))
    vessels_edge = by_height(p.mediastinum + 0.03 * np.cos(3.5 * LUT_Y + 1.6))
    a += 0.15 * _step(vessels_edge - np.abs(front - 0.015), 0.045) * inside
    a += 0.08 * _step(p.knob - np.sqrt((front - 0.12) ** 2 + (y + 0.34) ** 2), 0.05)
    trachea = _step(0.034 - np.abs(front - 0.1 * bend), 0.03)
    a -= 0.15 * trachea * by_height(np.clip((-0.22 - LUT_Y) / 0.06, 0, 1))

    # Heart: an egg lying to the left, its right border just past the spine.
    wide = p.heart_width * (1 + 0.08 * view.breath)
    hx = front - p.heart_x
    hy = y - (p.dome_y - lift - 0.20)
    tilt = hy - 0.42 * hx
    radius = np.sqrt((hx / wide) ** 2 + (tilt / p.heart_height) ** 2)
    heart = _step(1 - radius, 0.07) * _step(above_dome + 0.02, 0.08)
    heart_depth = heart * np.sqrt(np.clip(1.15 - radius * radius, 0, 1))
    a += heart_depth * (0.12 + 0.18 * air)
    air *= 1 - 0.3 * heart  # less lung in front of and behind the heart

    # Bones of the cage: each rib is one loop, its back part falling outwards, its front inwards.
    s = np.minimum(side, 1)
    arc = np.sqrt(1 - s * s)
    slant = s / np.maximum(arc, 0.12)
    in_cage = _step(lateral, soft * 2) * by_height(
        np.clip((LUT_Y - p.apex_y) / 0.06, 0, 1) * np.clip((0.95 - LUT_Y) / 0.2, 0, 1)
    )
    for drop, weight, phase in ((p.rib_drop, 1.0, 0.0), (-p.rib_slope, 0.6, 0.35)):
        height = y - drop * (1 - arc) if drop > 0 else y + drop * arc - p.rib_drop
        turns = height * np.float32(1 / p.rib_spacing) + np.float32(p.rib_phase + phase)
        turns -= np.floor(turns)
        steep = 1 / np.sqrt(1 + (drop * slant / p.chest_width) ** 2)
        rib = _tube((turns - 0.5) * steep * np.float32(p.rib_spacing), p.rib_thickness)
        if drop < 0:  # the cartilage in front does not show
            rib *= np.clip((s - 0.45) * 6, 0, 1)
        a += rib * in_cage * np.float32(p.rib_density * weight) * (1 - 0.7 * abdomen)

    # Shoulder girdle: only the rows that reach above the middle of the chest.
    rows = slice(0, max(1, int(np.count_nonzero(y.min(axis=1) < 0.15))))
    a[rows] += _draw_shoulders(p, view, front[rows], ax[rows], y[rows], sign[rows])

    # Breasts end in a soft edge below, strongest at the bottom of the arc.
    if p.breast > 0.02:
        bx, by = (ax - p.breast_x) / 0.34, (y - p.breast_y) / 0.26
        r = np.sqrt(bx * bx + by * by)
        a += p.breast * _step(1 - r, 0.22) * np.clip(0.75 + 0.45 * by, 0, 1)

    if p.stomach_gas:
        a -= p.stomach_gas * _bump(x - 0.33, y - dome - 0.07, 0.13, 0.045)
    hila = _bump(ax - 0.19, y + 0.03 + 0.03 * sign, 0.08, 0.12)
    a += p.hilum * hila * field * (1 - heart)
    gx, gy, gr, gd = p.granuloma
    if gd:
        a += gd * _bump(x - gx, y - gy, gr, gr) * air

    a += _draw_vessels(p, view, size_px) * np.float32(p.vessel_density) * air * (1 - 0.8 * heart)
    a += _draw_disturbances(view, x, y, body, air)
    lungs = (air > 0.08) & (medial > 0) & (above_dome > 0)
    return Frame(np.maximum(a, 0), air, lungs, x, y, side, dome, pixel)


def _draw_shoulders(patient: Anatomy, view: View, front, ax, y, sign) -> np.ndarray:
    """Clavicles, scapulae and upper arms, added attenuation."""
    outward = front * sign
    rise = np.float32(patient.clavicle_rise) * _step(outward - 0.33, 0.6)
    rise -= np.float32(0.02) * np.sin(9 * outward)
    rise -= np.float32(0.03 * view.turn) * sign
    clavicle = _tube(y - np.float32(patient.clavicle_y) + rise, 0.030)
    clavicle *= np.clip((outward - 0.06) * 30, 0, 1) * np.clip((0.9 - outward) * 10, 0, 1)
    bones = np.float32(0.12) * clavicle
    # Scapulae hang over the upper outer lung unless the shoulders are rolled forward.
    left_inset, right_inset = view.scapula[1], view.scapula[0]
    inset = np.where(sign < 0, np.float32(right_inset), np.float32(left_inset))
    margin = ax - np.float32(0.78) + inset
    margin -= np.float32(0.16) * np.abs(y + np.float32(0.3))
    span = np.clip((y + 0.78) * 10, 0, 1) * np.clip((0.12 - y) * 3.3, 0, 1)
    blade = np.clip(margin * 40 + 0.5, 0, 1) * span
    bones += blade * (0.05 + 0.05 * np.clip(1 - np.abs(margin - 0.02) * 30, 0, 1))
    # Head of the humerus, then its shaft running down and out.
    down = np.maximum(y + np.float32(0.55), 0)
    r = np.sqrt((ax - np.float32(1.02) - 0.18 * down) ** 2 + np.minimum(y + 0.55, 0) ** 2)
    radius = np.maximum(np.float32(0.15) - 0.4 * down, np.float32(0.085))
    bones += np.float32(0.13) * np.clip((radius - r) * 30 + 0.5, 0, 1)
    return bones


def _draw_vessels(patient: Anatomy, view: View, size_px: int) -> np.ndarray:
    """The vessel trees as float32 (size, size), 0..1."""
    paths, widths = patient.vessels
    points = project(view, paths, size_px).reshape(-1, 6).tolist()
    image = Image.new("L", (size_px, size_px))
    draw = ImageDraw.Draw(image)
    # Thin ones come first: a wide vessel is painted over its own branches, never under them.
    for path, width in zip(points, widths.tolist(), strict=True):
        wide = width * size_px / 2 * view.scale
        level = int(255 * min(1.0, 0.3 + 30 * width) * min(1.0, wide))
        draw.line(path, fill=level, width=max(1, round(wide)))
    image = image.filter(ImageFilter.GaussianBlur(max(0.6, size_px / 320)))
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def _draw_disturbances(view: View, x, y, body, air) -> np.ndarray:
    """Things that any chest image may carry: a skin fold, a basal band, a soft shadow, leads."""
    extra = np.zeros_like(x)
    at, slope, strength = view.fold
    if strength:
        across = x - at - slope * y
        extra += strength * _step(across, 0.01) * np.clip(1 - across / 0.25, 0, 1) * body
    bx, by, slope, strength = view.band
    if strength:
        along = (x - bx) / 0.16
        extra += strength * _bump(along, (y - by - slope * (x - bx)) / 0.016, 1, 1) * air
    hx, hy, rx, ry, strength = view.haze
    if strength:
        extra += strength * _bump(x - hx, y - hy, rx, ry) * body
    for ex, ey in view.electrodes:
        r = np.sqrt((x - ex) ** 2 + (y - ey) ** 2)
        extra += 0.12 * _step(0.03 - r, 0.012) + 0.2 * _step(0.012 - r, 0.01)
    return extra
