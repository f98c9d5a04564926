"""Drawn images for the sample catalogue: a silhouette per type, filled with a colour and a pattern.

Colour and pattern are all that a title may leave out; position, size, tilt, tone, light and background vary, so that
they have to be learned from pixels. The same arguments give the same bytes.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 96  # pixels, as the image encoder of the demo reads them
SCALE = 2  # drawn larger and reduced: smooth edges
JPEG_QUALITY = 88

TONES = {
    "red": (205, 30, 38),
    "orange": (240, 130, 25),
    "yellow": (245, 215, 45),
    "green": (45, 145, 65),
    "blue": (35, 85, 195),
    "purple": (120, 50, 160),
    "pink": (245, 140, 180),
    "brown": (115, 70, 38),
    "black": (32, 32, 36),
    "white": (246, 246, 244),
}

# A silhouette is drawn part by part in a unit square: "poly x y x y …", "oval", "box" and "hole" left top right bottom,
# "ring" left top right bottom width, "seam x y x y" (a dark line over the filling).
SHAPES = {
    "tshirt": (
        "poly .3 .18 .4 .22 .6 .22 .7 .18 .95 .36 .84 .5 .72 .42 .72 .86 .28 .86 .28 .42 .16 .5 .05 .36; hole .4 "
        ".12 .6 .28"
    ),
    "shirt": (
        "poly .34 .14 .66 .14 .84 .24 .97 .74 .84 .78 .72 .44 .72 .88 .28 .88 .28 .44 .16 .78 .03 .74 .16 .24; "
        "seam .5 .16 .5 .88; seam .36 .14 .5 .28; seam .64 .14 .5 .28"
    ),
    "dress": (
        "poly .36 .08 .43 .08 .45 .18 .55 .18 .57 .08 .64 .08 .66 .26 .6 .44 .84 .93 .16 .93 .4 .44 .34 .26; seam "
        ".4 .44 .6 .44"
    ),
    "skirt": "poly .34 .22 .66 .22 .88 .82 .12 .82; seam .32 .29 .68 .29",
    "trousers": "poly .3 .08 .7 .08 .78 .94 .58 .94 .5 .36 .42 .94 .22 .94; seam .29 .15 .71 .15",
    "shorts": "poly .24 .24 .76 .24 .86 .74 .56 .76 .5 .5 .44 .76 .14 .74; seam .23 .31 .77 .31",
    "sneaker": (
        "poly .06 .4 .26 .34 .4 .46 .56 .54 .82 .58 .94 .68 .94 .76 .06 .76; seam .06 .7 .94 .7; seam .4 .46 .34 "
        ".56; seam .48 .5 .42 .6"
    ),
    "boot": "poly .26 .08 .58 .08 .58 .56 .86 .68 .92 .84 .92 .92 .26 .92; seam .26 .84 .92 .84; seam .26 .18 .58 .18",
    "heel": "poly .1 .3 .18 .28 .3 .48 .56 .62 .86 .74 .95 .8 .95 .84 .62 .84 .36 .7 .22 .6 .17 .86 .13 .86 .12 .58",
    "handbag": "poly .14 .44 .86 .44 .94 .88 .06 .88; ring .28 .1 .72 .74 .05; seam .13 .54 .87 .54",
    "backpack": (
        "ring .4 .04 .6 .22 .04; oval .2 .1 .8 .56; box .2 .32 .8 .92; seam .28 .6 .72 .6; seam .28 .6 .28 .84; "
        "seam .72 .6 .72 .84; seam .28 .84 .72 .84"
    ),
    "suitcase": (
        "box .18 .28 .82 .88; ring .36 .08 .64 .48 .05; oval .24 .86 .34 .96; oval .66 .86 .76 .96; seam .18 .38 "
        ".82 .38; seam .18 .78 .82 .78"
    ),
    "cap": "oval .14 .24 .74 .96; hole 0 .62 1 1; poly .4 .56 .74 .54 .98 .64 .96 .7 .4 .64; seam .44 .24 .44 .62",
    "umbrella": (
        "oval .05 .1 .95 1; hole 0 .54 1 1.05; box .48 .5 .52 .9; ring .36 .78 .52 .96 .035; seam .5 .1 .32 .54; "
        "seam .5 .1 .68 .54"
    ),
    "mug": "box .16 .24 .66 .84; ring .54 .34 .9 .72 .07; seam .16 .3 .66 .3",
    "teapot": (
        "oval .22 .34 .78 .86; oval .45 .22 .55 .34; poly .26 .66 .04 .4 .1 .36 .32 .52; ring .66 .38 .96 .74 "
        ".05; seam .32 .42 .68 .42"
    ),
    "bowl": "oval .08 .06 .92 .88; hole 0 0 1 .46; box .36 .84 .64 .92; seam .08 .52 .92 .52",
    "plate": "oval .06 .06 .94 .94; seam .3 .24 .7 .24; seam .24 .3 .24 .7; seam .76 .3 .76 .7; seam .3 .76 .7 .76",
    "armchair": (
        "oval .24 .1 .76 .6; box .24 .34 .76 .76; box .1 .46 .28 .82; box .72 .46 .9 .82; box .14 .82 .2 .94; box "
        ".8 .82 .86 .94; seam .28 .62 .72 .62"
    ),
    "sofa": (
        "box .1 .28 .9 .7; box .02 .42 .16 .76; box .84 .42 .98 .76; box .08 .74 .13 .84; box .87 .74 .92 .84; "
        "seam .16 .54 .84 .54; seam .5 .28 .5 .7"
    ),
    "lamp": "poly .34 .08 .66 .08 .86 .52 .14 .52; box .47 .52 .53 .86; oval .3 .82 .7 .94",
    "cushion": "poly .1 .1 .5 .16 .9 .1 .84 .5 .9 .9 .5 .84 .1 .9 .16 .5",
    "kite": "poly .5 .04 .86 .4 .5 .84 .14 .4; seam .5 .04 .5 .84; seam .14 .4 .86 .4; box .49 .84 .51 .97",
    "ball": "oval .12 .12 .88 .88",
}


def draw_image(shape: str, colour: str, pattern: str, rng: np.random.Generator) -> bytes:
    """Draws one item of `SHAPES`, `TONES` and a pattern (plain, striped, dotted, checked) as JPEG, about 2.5 kB."""
    margin, tilt = rng.uniform(0.02, 0.12), rng.uniform(-9, 9)
    mask, seams = _draw_parts(SHAPES[shape], margin, tilt, mirror=bool(rng.random() < 0.5))
    tone = np.clip(np.array(TONES[colour], np.float32) + rng.normal(0, 9, 3), 0, 255)
    filling = Image.fromarray(_texture(tone, pattern, rng))
    dark = Image.new("RGB", (SIZE, SIZE), (20, 20, 20) if tone.sum() > 200 else (120, 120, 120))
    image = Image.fromarray(_background(rng))
    image.paste(Image.blend(image, dark, 0.55), mask=mask.filter(ImageFilter.MaxFilter(3)))
    image.paste(filling, mask=mask)
    image.paste(Image.blend(filling, dark, 0.6), mask=seams)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _draw_parts(shape: str, margin: float, tilt: float, *, mirror: bool) -> tuple[Image.Image, Image.Image]:
    """The silhouette and its seams as masks. Drawn larger, tilted in degrees, and reduced, which smooths the edges."""
    side = SIZE * SCALE
    images = Image.new("L", (side, side)), Image.new("L", (side, side))
    mask, seams = (ImageDraw.Draw(image) for image in images)
    for part in shape.split("; "):
        kind, *numbers = part.split()
        values = [float(v) for v in numbers]
        width = values.pop() if kind == "ring" else 0.0
        points = [(1 - x if mirror else x, y) for x, y in zip(values[::2], values[1::2], strict=True)]
        xy = [((margin + (1 - 2 * margin) * x) * side, (margin + (1 - 2 * margin) * y) * side) for x, y in points]
        if kind == "poly":
            mask.polygon(xy, fill=255)
        elif kind == "seam":
            seams.line(xy, fill=255, width=2 * SCALE)
        else:
            (x0, y0), (x1, y1) = xy
            box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            if kind == "box":
                mask.rectangle(box, fill=255)
            elif kind == "ring":
                mask.ellipse(box, outline=255, width=max(round(width * side), 2))
            elif kind == "hole" and box[2] - box[0] > 0.7 * side:  # a wide hole cuts straight
                mask.rectangle(box, fill=0)
            else:
                mask.ellipse(box, fill=0 if kind == "hole" else 255)
    small = [i.rotate(tilt, Image.Resampling.BILINEAR).resize((SIZE, SIZE), Image.Resampling.BOX) for i in images]
    return small[0], small[1]


def _texture(tone: np.ndarray, pattern: str, rng: np.random.Generator) -> np.ndarray:
    """uint8 [SIZE, SIZE, 3]: the tone under a pattern (white, on light tones dark grey), lit from above."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.08)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    period, phase = rng.uniform(0.13, 0.17), rng.uniform(0, 1, 2)
    # Distance to the middle of the nearest mark, in periods: 0 … 0.5 along each axis.
    a, b = (np.abs((t / period + p) % 1 - 0.5) for t, p in zip((u, v), phase, strict=True))
    sharp = period * SIZE  # an edge fades over one pixel
    if pattern == "striped":
        marks = np.clip((0.18 - a) * sharp, 0, 1)
    elif pattern == "dotted":
        marks = np.clip((0.3 - np.hypot(a, b)) * sharp, 0, 1)
    elif pattern == "checked":
        marks = 0.5 * np.clip((0.23 - a) * sharp, 0, 1) + 0.5 * np.clip((0.23 - b) * sharp, 0, 1)
    else:
        marks = np.zeros_like(x)
    light_tone = tone.min() > 150 or tone.sum() > 480
    ink = np.array([70, 70, 80] if light_tone else [248, 248, 244], np.float32)
    filled = tone + marks[..., None] * (ink - tone)
    shade = 1.06 - rng.uniform(0.06, 0.22) * y
    return np.clip(filled * shade[..., None], 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator) -> np.ndarray:
    """uint8 [SIZE, SIZE, 3]: a light studio wall, a little darker to the bottom."""
    wall = rng.uniform(205, 238) + rng.normal(0, 4, 3)
    fade = np.linspace(1.03, rng.uniform(0.9, 1.0), SIZE)[:, None, None]
    return np.clip(np.broadcast_to(wall * fade, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
