"""Simulate fundus photographs that are out of focus, badly lit, hazy, full of glare, over-compressed or noisy.

Light falls off in two ways: evenly across the field, or at an edge behind which a part of the field is dark, as behind
a small pupil or a lid. Glare is a reflection of the lamp on the cornea or the lens of a smartphone: white spots.
Cameras differ in colour and contrast, and some programs paint the ground around the field gray: copies differ in both,
and neither is a degradation.
"""

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from mediqa_node.image.foreground import brightest
from mediqa_node.image.fundus import DARK
from mediqa_node.image.measure.noise import immerkaer_robust
from training.simulate.degraded import FACTORS, WORST, BaseImage, Degraded, Step, quality_of, saturating

REFERENCE_PX = 384
"""Blur is given in pixels of a picture with this longer edge."""
EDGES_PX = (384, 512, 768)
"""Cameras differ: a copy has one of these as its longer edge."""
_BLUR_PX = (0.3, 8.0)
_JPEG = (8, 60)
_HALF_WAY = {"blur": 2.5, "illumination": 0.35, "glare": 0.12, "jpeg": 0.02, "noise": 0.06}
_DIM = 0.5
"""How much an evenly dark field counts compared with an uneven one."""
_IN_SHADE = 0.4
"""How often badly lit means a part in the dark."""
_COLOUR, _CONTRAST = 0.12, 0.15
"""Deviations of the logarithms of the gains of the channels, and of saturation and gamma."""
_GRAY_GROUND = 0.2
_GROUND = 0.03
"""Brighter than this lies inside the field or is a mark on it."""


QUALITY = f"product of 1 - {WORST:g} severity of {', '.join(FACTORS['OP'])}"


def degrade(
    base: BaseImage, random: np.random.Generator, plan: Sequence[Step], *, varied: bool = True
) -> Iterator[Degraded]:
    """Yield a copy of a photograph for every step of the plan, all of the same size.

    Args:
        varied: draw another size, colour and ground.
    """
    edge = int(random.choice(EDGES_PX)) if varied else EDGES_PX[-1]
    clean = at_size(base.image, edge).astype(np.float64) / 255.0
    around = _ground(clean)
    if varied:
        clean = _recoloured(clean, random)
    inside = field(clean)
    ground = random.uniform(0.1, 0.9) if varied and random.random() < _GRAY_GROUND else 0.0
    own = {"blur": own_blur_px(clean, inside), "noise": own_noise(clean, inside)}
    for step in plan:
        settings = _drawn(random, step)
        image, changes = _taken(clean, settings, inside, random)
        if ground:
            image = np.where(around[..., None], ground, image)
        blur_px = float(np.hypot(own["blur"], changes.pop("blur")))
        changes["noise"] = float(np.hypot(own["noise"], changes["noise"]))
        severities = {"blur": saturating(blur_px - 0.7, _HALF_WAY["blur"]), "haze": changes.pop("haze")}
        severities |= {name: saturating(change, _HALF_WAY[name]) for name, change in changes.items()}
        yield Degraded(
            image=(255.0 * image).astype(np.float32),
            factor=step.factor,
            settings={**settings, "body": float(inside.mean())},
            severities=severities,
            labels={"quality": quality_of(severities), "blur": blur_px},
        )


def _ground(image: np.ndarray) -> np.ndarray:
    """Return the mask of what lies around the field and the marks on its rim."""
    smooth = ndimage.uniform_filter(brightest(image), 5)
    return np.asarray(~ndimage.binary_fill_holes(smooth > _GROUND))


def _recoloured(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return RGB 0..1 as another camera might show it: white balance, saturation and gamma."""
    gain, saturation, gamma = np.exp(random.normal(0.0, _COLOUR, 3)), *np.exp(random.normal(0.0, _CONTRAST, 2))
    gray = image.mean(axis=-1, keepdims=True)
    balanced = (gray + saturation * (image - gray)) * gain / gain.mean()
    return np.asarray(np.clip(balanced, 0.0, 1.0) ** gamma)


def _drawn(random: np.random.Generator, step: Step) -> dict[str, float]:
    chosen = {step.factor} if step.factor != "mixed" else {f for f in FACTORS["OP"] if random.random() < 0.45}
    settings: dict[str, float] = {}
    if "blur" in chosen:
        settings["blur_px"] = step.between_logs(*_BLUR_PX, random)
    if "illumination" in chosen:
        settings |= {"ramp": step.between(0.1, 1.4, random), "direction": random.uniform(0.0, 2 * np.pi)}
        if random.random() < _IN_SHADE:
            settings |= {"shade": step.between(0.15, 0.95, random), "edge": random.uniform(-0.5, 0.4)}
    if "haze" in chosen:
        settings |= {"veil": step.between(0.05, 0.75, random), "centre": random.uniform(-0.5, 0.5)}
    if "glare" in chosen:
        settings |= {"spots": float(random.integers(1, 4)), "spot": step.between(0.05, 0.35, random)}
    if "jpeg" in chosen:
        settings["jpeg"] = round(step.between_logs(*_JPEG[::-1], random))
    if "noise" in chosen:
        settings["noise"] = step.between_logs(0.005, 0.15, random)
    return settings


def _taken(
    clean: np.ndarray, settings: Mapping[str, float], inside: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the degraded photograph, RGB 0..1, and the change by each factor inside the field."""
    changes = dict.fromkeys(FACTORS["OP"], 0.0)
    image = clean
    if "blur_px" in settings:
        sd_px = settings["blur_px"] * max(clean.shape[:2]) / REFERENCE_PX
        image = ndimage.gaussian_filter(image, (sd_px, sd_px, 0), truncate=3.0)
        changes["blur"] = settings["blur_px"]
    if "ramp" in settings:
        gain = _ramp(clean.shape[:2], settings)
        logs = np.log(gain[inside])
        changes["illumination"] = float(np.hypot(logs.std(), _DIM * logs.mean()))
        image = image * gain[..., None]
    if "veil" in settings:
        veil = _veil(clean.shape[:2], settings)[..., None]
        hazy = image * (1 - veil) + veil * np.array([0.75, 0.7, 0.62])
        changes["haze"] = float(veil[inside].mean())  # the share of local contrast that is lost
        image = np.where(inside[..., None], hazy, image)
    if "spots" in settings:
        glare = _glare(clean.shape[:2], settings, inside, random)
        changes["glare"] = float((glare * (1.0 - image.mean(axis=-1)))[inside].mean())
        image = image + glare[..., None] * (1.0 - image)
    if "noise" in settings:
        image = image + random.standard_normal(image.shape) * settings["noise"]
        changes["noise"] = settings["noise"]
    image = np.clip(image, 0.0, 1.0)
    if "jpeg" in settings:
        packed = _jpeg(image, int(settings["jpeg"]))
        changes["jpeg"] = float(np.sqrt(np.mean((packed - image)[inside] ** 2)))
        image = packed
    return image, changes


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.round(255.0 * image).astype(np.uint8)).save(file, format="JPEG", quality=quality)
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB"), dtype=np.float64) / 255.0


def _ramp(shape: tuple[int, ...], settings: Mapping[str, float]) -> np.ndarray:
    """Return a gain up to 1: a plane across the field, in the logarithm, times the edge of a shade if there is one."""
    y, x = (np.linspace(-1.0, 1.0, size) for size in shape)
    along = np.cos(settings["direction"]) * x[None] + np.sin(settings["direction"]) * y[:, None]
    gain = np.exp(settings["ramp"] * (along - np.abs(along).max()) / 2)
    if "shade" in settings:
        gain = gain * (1.0 - settings["shade"] / (1.0 + np.exp(12.0 * (along - settings["edge"]))))
    return np.asarray(gain)


def _glare(
    shape: tuple[int, ...], settings: Mapping[str, float], inside: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Return the opacity of white spots with soft rims inside the field, 0..1."""
    rows, columns = np.nonzero(inside)
    y, x = (np.linspace(-1.0, 1.0, size) for size in shape)
    opacity = np.zeros(shape)
    for _ in range(int(settings["spots"])):
        at = int(random.integers(len(rows)))
        wide, tall = settings["spot"] * random.uniform(0.5, 1.0, 2)
        far = np.hypot((x[None] - x[columns[at]]) / wide, (y[:, None] - y[rows[at]]) / tall)
        opacity = np.maximum(opacity, random.uniform(0.7, 1.0) / (1.0 + np.exp(8.0 * (far - 1.0))))
    return opacity


def _veil(shape: tuple[int, ...], settings: Mapping[str, float]) -> np.ndarray:
    y, x = (np.linspace(-1.0, 1.0, size) for size in shape)
    distance = (x[None] - settings["centre"]) ** 2 + (y[:, None] - settings["centre"]) ** 2
    return np.asarray(settings["veil"] * (0.6 + 0.4 * np.exp(-distance)))


def at_size(image: np.ndarray, edge: int = 2 * EDGES_PX[-1]) -> np.ndarray:
    """Return RGB 0..255, uint8, reduced to a longer edge of `edge` pixels; smaller pictures are unchanged."""
    scale = min(1.0, edge / max(image.shape[:2]))
    width, height = (max(1, round(scale * length)) for length in image.shape[1::-1])
    picture = Image.fromarray(np.round(image).clip(0, 255).astype(np.uint8))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC) if scale < 1 else picture)


def field(image: np.ndarray) -> np.ndarray:
    """Return the mask of the illuminated field of RGB 0..1, slightly inside its rim."""
    lit = ndimage.binary_fill_holes(brightest(image) > DARK / 255.0)
    inner = ndimage.binary_erosion(lit, iterations=max(2, len(image) // 64))
    return np.asarray(inner if inner.sum() > 500 else np.ones_like(inner))


def own_blur_px(image: np.ndarray, inside: np.ndarray) -> float:
    """Estimate the blur of the source, in pixels of `REFERENCE_PX`, from the edge energy lost to a known blur.

    The gradient energy of an edge with blur s goes as 1 / s; a further blur t scales it by s / sqrt(s^2 + t^2).
    """
    scale = max(image.shape[:2]) / REFERENCE_PX
    t = 1.0 * scale
    green = image[..., 1]
    before, after = (_edge_energy(one, inside) for one in (green, ndimage.gaussian_filter(green, t)))
    ratio = min(after / max(before, 1e-12), 0.98)
    return float(t * ratio / np.sqrt(1 - ratio**2) / scale)


def _edge_energy(gray: np.ndarray, inside: np.ndarray) -> float:
    gradients = [ndimage.gaussian_filter(gray, 0.7, order=order) for order in ((0, 1), (1, 0))]
    return float(sum((part[inside] ** 2).mean() for part in gradients))


def own_noise(image: np.ndarray, inside: np.ndarray) -> float:
    """Estimate the standard deviation of the source's noise in the green channel, robustly (Immerkaer 1996)."""
    return immerkaer_robust(image[..., 1], inside)
