"""MR measures against phantoms of known truth, and against noise inserted into real images: tables of errors.

    pytest -n 0 -s -m acceptance tests/acceptance/test_measure_phantoms_mr.py

Limits of agreement are those of Bland and Altman 1986 (doi 10.1016/s0140-6736(86)90837-8): mean +- 1.96 SD of the
differences. A line counts all stacks that have a value; the one below it those that are valid.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from support.mr_phantoms import Protocol, scan, source_of

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.measure_facts import MrFacts
from mediqa_node.domain.measures import Measure, Validity
from mediqa_node.image.measure.mr.regions import regions
from mediqa_node.image.measure.mr.series import measure_mr
from mediqa_node.image.measure.mr.support import Edge, spectrum, support
from mediqa_node.image.measure.stack_source import evenly
from mediqa_node.pipeline.score import read_headers

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]

SLICES = 3
KINDS = ("head", "trunk", "disc")
COARSE, MIDDLE, FINE = (((size, size), (size, size)) for size in (64, 128, 256))
"""Matrix of the image, acquired matrix."""
FILLED = (((256, 256), (128, 128)), ((192, 160), (120, 160)))
REAL = Path(__file__).parents[1] / "data"


@dataclass(frozen=True, slots=True)
class Pair:
    """What was measured, of what is known."""

    measure: Measure
    truth: float

    @property
    def valid(self) -> bool:
        return self.measure.validity is Validity.VALID


@dataclass(frozen=True, slots=True)
class Agreement:
    """Bland and Altman's figures of one line."""

    n: int
    asked: int
    bias: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.n:4d} of {self.asked:4d}  {self.bias:+7.3f}  {self.low:+7.3f} .. {self.high:+7.3f}"


def agreement(pairs: Sequence[Pair], *, relative: bool) -> Agreement:
    """Return the agreement of the pairs that have a value."""
    known = [(one.measure.value, one.truth) for one in pairs if one.measure.value is not None]
    errors = np.array([(value - truth) / (truth if relative else 1.0) for value, truth in known])
    if not len(errors):
        return Agreement(0, len(pairs), np.nan, np.nan, np.nan)
    spread = 1.96 * float(errors.std(ddof=1)) if len(errors) > 1 else 0.0
    bias = float(errors.mean())
    return Agreement(len(errors), len(pairs), bias, bias - spread, bias + spread)


def say(line: str) -> None:
    print(line)  # noqa: T201  a table for people, with -s


def show(title: str, lines: dict[str, list[Pair]], *, relative: bool) -> dict[str, Agreement]:
    """Print a table; return the agreement of the valid pairs of each line."""
    say(f"\n{title} ({'share of the truth' if relative else 'difference'})")
    say(f"{'':34s}   measured       bias   limits of agreement")
    valid = {}
    for name, pairs in lines.items():
        valid[name] = agreement([one for one in pairs if one.valid], relative=relative)
        say(f"{name:34s} {agreement(pairs, relative=relative)}")
        say(f"{'':26s} valid:  {valid[name]}")
    return valid


def measured(kind: str, protocol: Protocol, name: str, seed: int, *, header: bool = True, **drawn: float) -> Pair:
    """Scan a stack of three slices and measure it; the truth is set by the caller."""
    scans = [scan(kind, protocol, seed + index, **drawn) for index in range(SLICES)]
    facts = MrFacts(phase_axis=protocol.phase_axis, acquired_matrix=protocol.acquired if header else None)
    found = measure_mr(source_of([one.image for one in scans]), facts, {name})[0]
    truths: dict[str, Callable[[], list[float]]] = {
        "mr.snr": lambda: [one.snr for one in scans],
        "mr.ghost_ratio": lambda: [_ghost(one.ghosts, one.clean, one.body, protocol.phase_axis) for one in scans],
        "mr.nonuniformity": lambda: [_unevenness(one.field[one.body]) for one in scans],
        "mr.support.rows": lambda: [protocol.acquired[0] / protocol.matrix[0]],
        "mr.support.columns": lambda: [protocol.acquired[1] / protocol.matrix[1]],
    }
    return Pair(found, float(np.median(truths[name]())))


def _ghost(ghosts: np.ndarray, clean: np.ndarray, body: np.ndarray, axis: int) -> float:
    """Return the median of the ghosts beside the body along an axis over the median signal of the body."""
    found = regions(clean.astype(np.float32))
    assert found is not None
    beside = found.air & body.any(axis=axis, keepdims=True)
    return float(np.median(ghosts[beside]) / np.median(clean[body]))


def _unevenness(field: np.ndarray) -> float:
    low, middle, high = np.percentile(field, (25, 50, 75))
    return float((high - low) / middle)


# ── signal to noise ──────────────────────────────────────────────────────────


def test_snr_of_phantoms() -> None:
    plain, masked = Protocol(), Protocol(mask_air=True)
    ways = {
        "one coil, with air": (plain, 0.05, (COARSE, MIDDLE, FINE)),
        "one coil, air masked": (masked, 0.05, (COARSE, MIDDLE, FINE)),
        "one coil, air masked, 3 x texture": (masked, 0.15, (COARSE, MIDDLE)),
        "one coil, filled with zeros": (plain, 0.05, FILLED),
        "  the same, air masked": (masked, 0.05, FILLED),
        "elliptical, air masked": (replace(masked, elliptical=True), 0.05, (MIDDLE,)),
        "partial Fourier 6/8, with air": (replace(plain, partial=0.75), 0.05, (MIDDLE,)),
        "partial Fourier 6/8, air masked": (replace(masked, partial=0.75), 0.05, (MIDDLE,)),
        "8 coils": (replace(plain, coils=8), 0.05, (COARSE, MIDDLE)),
        "32 coils": (replace(plain, coils=32), 0.05, (COARSE, MIDDLE)),
        "Hann window": (replace(plain, hann=True), 0.05, (MIDDLE,)),
    }
    lines = {
        name: [
            measured(kind, replace(way, sigma=sigma, matrix=matrix, acquired=acquired), "mr.snr", 100, texture=texture)
            for kind in KINDS
            for sigma in (0.01, 0.03, 0.1, 0.2)
            for matrix, acquired in matrices
        ]
        for name, (way, texture, matrices) in ways.items()
    }

    valid = show("mr.snr", lines, relative=True)

    for name in ("one coil, with air", "one coil, filled with zeros", "partial Fourier 6/8, with air"):
        assert abs(valid[name].bias) < 0.03, name
        assert valid[name].low > -0.12, name
        assert valid[name].high < 0.1, name
    for name in ("one coil, air masked", "  the same, air masked", "one coil, air masked, 3 x texture"):
        assert valid[name].low > -0.3, name
        assert valid[name].high < 0.15, name
    for name in ("8 coils", "32 coils"):
        assert valid[name].low > -0.35, name
        assert valid[name].high < 0.15, name
    assert valid["Hann window"].n == 0


# ── the acquired part of k-space ─────────────────────────────────────────────


def test_support_of_phantoms() -> None:
    sizes = ((256, 128), (256, 192), (128, 80), (128, 96), (128, 112))
    lines: dict[str, list[Pair]] = {}
    for header in (True, False):
        for name, full in (("filled with zeros", False), ("k-space full", True)):
            lines[f"{name}, {'with' if header else 'without'} header"] = [
                measured(kind, _square(matrix, matrix if full else acquired, sigma, coils), axis, 200, header=header)
                for kind in KINDS
                for matrix, acquired in sizes
                for sigma in (0.01, 0.05, 0.2)
                for coils in ((1, 4) if matrix < 256 else (1,))
                for axis in ("mr.support.rows", "mr.support.columns")
            ]

    valid = show("mr.support", lines, relative=False)

    for name, found in valid.items():
        assert abs(found.bias) < 0.02, name
        assert found.high - found.low < 0.12, name
    assert valid["filled with zeros, with header"].n > 0.75 * valid["filled with zeros, with header"].asked


def _square(matrix: int, acquired: int, sigma: float, coils: int) -> Protocol:
    return Protocol(matrix=(matrix, matrix), acquired=(acquired, acquired), sigma=sigma, coils=coils)


# ── ghosts ───────────────────────────────────────────────────────────────────


def test_ghosts_of_phantoms() -> None:
    inserted = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.12)
    lines = {
        f"{kind}, SNR {1 / sigma:.0f}": [
            measured(kind, Protocol(sigma=sigma, ghost=ghost, phase_axis=axis, coils=coils), "mr.ghost_ratio", 300)
            for ghost in inserted
            for axis in (0, 1)
            for coils in (1, 4)
        ]
        for kind in KINDS
        for sigma in (0.01, 0.05)
    }

    valid = show("mr.ghost_ratio", lines, relative=False)

    for name, found in valid.items():
        pairs = [(one.truth, one.measure.value) for one in lines[name] if one.measure.value is not None]
        above = np.array([pair for pair in pairs if pair[0] > 0.01])
        slope, offset = np.polyfit(*above.T, 1)
        say(f"{name:20s} slope {slope:.3f}, offset {offset:+.4f}, R2 {np.corrcoef(*above.T)[0, 1] ** 2:.4f}")
        assert slope == pytest.approx(1.0, abs=0.1), name
        assert abs(found.bias) < 0.01, name


# ── nonuniformity ────────────────────────────────────────────────────────────

FIELDS = (
    (0.0, 0.0, 0.0, 0.0), (0.1, 0.0, 0.0, 0.0), (0.3, 0.0, 0.0, 0.0), (0.0, 0.5, 0.0, 0.0), (0.2, 0.2, 0.0, 0.0),
    (0.0, 0.0, -0.4, -0.4), (0.0, 0.0, 0.5, 0.3), (0.2, -0.1, -0.3, 0.1), (0.6, 0.3, 0.0, 0.0),
)  # fmt: skip


def test_nonuniformity_of_phantoms() -> None:
    lines = {
        kind: [
            measured(kind, Protocol(matrix=size, acquired=size, sigma=sigma, bias=bias), "mr.nonuniformity", 400)
            for bias in FIELDS
            for size, _ in (COARSE, MIDDLE, FINE)
            for sigma in (0.02, 0.1)
        ]
        for kind in KINDS
    }

    valid = show("mr.nonuniformity", lines, relative=False)

    assert abs(valid["disc"].bias) < 0.01
    assert valid["disc"].high - valid["disc"].low < 0.06
    for kind in ("head", "trunk"):
        assert abs(valid[kind].bias) < 0.06
        assert valid[kind].high < 0.18


# ── noise inserted into real images ──────────────────────────────────────────

INSERTED = (0.01, 0.02, 0.04, 0.08, 0.16)
"""Standard deviations of the real part, as shares of the median signal of the body."""


def test_noise_inserted_into_real_images(request: pytest.FixtureRequest) -> None:
    """The images' own noise is not known, so that only what exceeds it by far is compared."""
    named = request.config.getoption("--collection", None)
    say("\nnoise inserted into real images: measured over inserted, by share of the signal")
    valid = []
    for name, images, facts in real_stacks(Path(named) if named else REAL):
        row = []
        for share in INSERTED:
            found = measure_mr(source_of(noisier(images, share, facts)), facts, {"mr.snr"})[0]
            if found.value is None:
                row.append("     none")
                continue
            row.append(f"{1 / found.value / share:5.2f} {str(found.limit or 'valid')[:9]:9s}")
            if found.validity is Validity.VALID:
                valid.append((share, 1 / found.value))
        say(f"{name:34s} {'  '.join(row)}")

    inserted, known = np.array(valid).T
    slope, offset = np.polyfit(inserted, known, 1)
    ratio = known / inserted
    say(f"valid: n {len(valid)}, slope {slope:.2f}, offset {offset:+.4f}, ratio {ratio.min():.2f} .. {ratio.max():.2f}")
    assert len(valid) >= 4
    assert ratio.min() > 0.85
    assert np.median(ratio) < 1.3


def real_stacks(collection: Path) -> Iterator[tuple[str, list[np.ndarray], MrFacts]]:
    """Yield name, at most six slices and facts of every MR stack of a collection."""
    for folder in sorted(collection.glob("mr_*")):
        files = read_headers(sorted(folder.glob("*.dcm")))
        for number, stack in enumerate(assemble_stacks(files.headers)):
            with FrameReader() as reader:
                image_at = image_getter(stack, files.paths, files.headers, reader, stored=False)
                images = [np.maximum(image_at(index), 0) for index in evenly(len(stack.frames), 6)]
            yield f"{folder.name} {number}", images, MrFacts()


def noisier(images: Sequence[np.ndarray], share: float, facts: MrFacts) -> list[np.ndarray]:
    """Return images with complex noise in the acquired part of k-space, and a smooth phase, as magnitudes."""
    random = np.random.default_rng(5)
    folded = spectrum([image / image.max() for image in images])
    shape = images[0].shape
    ends = [support(folded, axis, shape[axis], None) for axis in (0, 1)]
    shares = [1.0 if one.edge is Edge.UNKNOWN else one.share for one in ends]
    rows, columns = (np.abs(np.fft.fftfreq(size)) <= part / 2 for size, part in zip(shape, shares, strict=True))
    acquired = np.outer(rows, columns)
    signal = np.median([np.median(image[found.body]) for image in images if (found := regions(image))])
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    noisy = []
    for image in images:
        real, imaginary = random.standard_normal((2, *shape)) * share * signal / np.sqrt(acquired.mean())
        noise = np.fft.ifft2(np.fft.fft2(real + 1j * imaginary) * acquired)
        noisy.append(np.abs(image * np.exp(1j * (y + 0.7 * x * y)) + noise).astype(np.float32))
    return noisy
