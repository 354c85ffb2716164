"""Decide from the edges of many frames whether depth lies on colour, and how it would.

Contours of depth fall on colour edges where depth is registered. Their agreement is measured at
every shift and scale of a grid. Is it greater anywhere than in shuffled pairs (a permutation test
of the maximum)? Where (a bootstrap over blocks of frames), and is that beyond the tolerance?
docs/checking_data.md explains it and has measured rates.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from mmmask3d.visualization.edges import EdgePair

TOLERANCE = 0.01  # of the width: 3.2 pixels of 320, a fifth of a patch
# Factors 0.58 to 1.72; a whole step next to 1 would be beyond the tolerance, hence a half one.
_STEPS = np.arange(1, 19) * 0.03
LOG_SCALES = np.concatenate([-_STEPS[::-1], [-0.015, 0, 0.015], _STEPS])
_RADIUS = 0.1  # of the width: greatest shift
_LEAST_EDGES = 40  # contour pixels a frame needs to take part
LEAST_FRAMES = 8  # frames a set needs
_BOOTSTRAP, _BLOCKS = 200, 16
_LEAST_PERMUTATIONS, _PERMUTED_FRAMES = 39, 40
_SIGNIFICANCE = 0.05
_CONFIDENCE = 0.975


@dataclass(frozen=True)
class Registration:
    """The registration of a set.

    Verdicts: 'registered', 'misregistered', 'unmatched' (no agreement anywhere), 'undecided' (the
    frames disagree about the place), 'too few' (frames with contours).
    """

    verdict: str
    used: int  # frames with enough contours
    shift: tuple[float, float] = (0.0, 0.0)  # (right, down), pixels: how depth has to move to fit
    scale: float = 1.0  # by how much depth has to be enlarged about the centre
    displacement: float = 0.0  # of a frame's pixels, root mean square, share of the width
    interval: tuple[float, float] = (0.0, 0.0)  # of 95 % of the bootstrap's displacements
    agreement: float = 0.0  # mean at the best place
    agreement_as_is: float = 0.0  # greatest mean within the tolerance
    agreement_shuffled: float = 0.0  # greatest mean anywhere, median over shuffled pairings
    p_value: float = 1.0  # of question 1
    width: int = 0  # of the frame whose pixels `shift` counts


class Correlator:
    """Agreement of contours and colour edges over a grid of scales and shifts.

    Args:
        pairs: All frames that will be asked about; they decide the size of the transforms.
        radius: Greatest shift in pixels of the pairs; by default a tenth of the width.
    """

    def __init__(self, pairs: Sequence[EdgePair], radius: int | None = None) -> None:
        height = max(pair.colour.shape[1] for pair in pairs)
        width = max(pair.colour.shape[2] for pair in pairs)
        self.radius = max(1, round(_RADIUS * width)) if radius is None else radius
        # Room for the shifts, so that nothing comes in again at the other side.
        self.shape = tuple(
            fft.next_fast_len(n + 2 * self.radius, real=True) for n in (height, width)
        )

    def colour_spectrum(self, pair: EdgePair) -> np.ndarray:
        """Conjugate transform of the colour edges, complex64 (3, H', W' / 2 + 1)."""
        return np.conj(fft.rfft2(pair.colour, s=self.shape))

    def contour_spectrum(self, pair: EdgePair, log_scale: float) -> np.ndarray:
        """Transform of the contours, enlarged about the centre and divided by their number."""
        height, width = pair.colour.shape[1:]
        middle = (height - 1) / 2, (width - 1) / 2
        factor = np.exp(log_scale)
        rows = np.rint(middle[0] + factor * (pair.rows - middle[0])).astype(np.int64)
        columns = np.rint(middle[1] + factor * (pair.columns - middle[1])).astype(np.int64)
        near = (rows >= -self.radius) & (rows < height + self.radius)
        near &= (columns >= -self.radius) & (columns < width + self.radius)
        # Negative places count from the end, which is what the transform takes them for.
        place = (rows[near] % self.shape[0]) * self.shape[1] + columns[near] % self.shape[1]
        drawn = [
            np.bincount(place, weights, minlength=self.shape[0] * self.shape[1])
            for weights in pair.contours[:, near]
        ]
        canvas = np.asarray(drawn, np.float32).reshape(3, *self.shape)
        return fft.rfft2(canvas) / np.float32(max(len(pair.rows), 1))

    def surface(self, spectrum: np.ndarray) -> np.ndarray:
        """Agreement at each shift from the summed product of spectra.

        Args:
            spectrum: Contour spectrum times colour spectrum, summed over the three channels.

        Returns:
            float32 (2 * radius + 1, 2 * radius + 1), [down + radius, right + radius].
        """
        full = fft.irfft2(np.conj(spectrum), s=self.shape)
        side = 2 * self.radius + 1
        return np.roll(full, (self.radius, self.radius), (0, 1))[:side, :side]

    def surfaces(self, contours: EdgePair, colour: EdgePair) -> np.ndarray:
        """Agreement at each scale and shift, float32 (scales, 2 * radius + 1, 2 * radius + 1)."""
        spectrum = self.colour_spectrum(colour)
        return np.stack(
            [
                self.surface((self.contour_spectrum(contours, s) * spectrum).sum(0))
                for s in LOG_SCALES
            ]
        )


def has_contours(pair: EdgePair) -> bool:
    """Whether a frame has enough contours to take part."""
    return len(pair.rows) >= _LEAST_EDGES


def registration(
    pairs: Sequence[EdgePair],
    tolerance: float = TOLERANCE,
    seed: int = 0,
    run: Callable[..., Iterable[np.ndarray]] = map,
) -> Registration:
    """Judge the registration of a set from some of its frames.

    Args:
        pairs: Edges of frames that have contours, in the order of the set (neighbours in a video
            are alike).
        tolerance: Displacement that counts as registered, as a share of the width.
        seed: Of the shuffled pairings and the bootstrap.
        run: Instead of ``map``, to measure pairs in parallel.
    """
    if len(pairs) < LEAST_FRAMES:
        return Registration('too few', len(pairs))
    correlator = Correlator(pairs)
    stack = np.stack(list(run(lambda pair: correlator.surfaces(pair, pair), pairs)))
    rng = np.random.default_rng(seed)
    displacements = _displacements(pairs, correlator.radius)

    mean = stack.mean(0)
    shuffled, p_value = _compare_with_shuffled(pairs, stack, correlator, rng)
    best = np.unravel_index(mean.argmax(), mean.shape)
    draws = _draw_displacements(stack, displacements, rng)
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    if p_value > _SIGNIFICANCE:
        verdict = 'unmatched'
    elif np.mean(draws > tolerance) >= _CONFIDENCE:
        verdict = 'misregistered'
    elif np.mean(draws <= tolerance) >= _CONFIDENCE:
        verdict = 'registered'
    else:
        verdict = 'undecided'
    pixel = float(np.median([pair.pixel for pair in pairs]))
    return Registration(
        verdict,
        len(pairs),
        shift=_in_pixels(mean[best[0]], best[1:], correlator.radius, pixel),
        scale=float(np.exp(LOG_SCALES[best[0]])),
        displacement=float(displacements[best]),
        interval=(low, high),
        agreement=float(mean[best]),
        agreement_as_is=float(mean[displacements <= tolerance].max()),
        agreement_shuffled=shuffled,
        p_value=p_value,
        width=round(pixel * pairs[0].colour.shape[2]),
    )


def _displacements(used: Sequence[EdgePair], radius: int) -> np.ndarray:
    """Root mean square displacement of a frame's pixels, share of the width, over the grid."""
    height = np.median([pair.colour.shape[1] for pair in used])
    width = np.median([pair.colour.shape[2] for pair in used])
    steps = np.arange(-radius, radius + 1)
    spread = (np.exp(LOG_SCALES) - 1) ** 2 * (height**2 + width**2) / 12
    square = spread[:, None, None] + steps[None, :, None] ** 2 + steps[None, None, :] ** 2
    return np.sqrt(square) / width


def _draw_displacements(
    stack: np.ndarray, displacements: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Displacement at the best place, for draws of blocks of frames with replacement."""
    count = len(stack)
    length = max(1, count // _BLOCKS)
    starts = rng.integers(0, count, (_BOOTSTRAP, -(-count // length)))
    members = ((starts[..., None] + np.arange(length)) % count).reshape(_BOOTSTRAP, -1)[:, :count]
    weights = np.zeros((_BOOTSTRAP, count), np.float32)
    np.add.at(weights, (np.arange(_BOOTSTRAP)[:, None], members), 1 / count)
    best = (weights @ stack.reshape(count, -1)).argmax(axis=1)
    return displacements.ravel()[best]


def _compare_with_shuffled(
    used: Sequence[EdgePair],
    stack: np.ndarray,
    correlator: Correlator,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Median of the greatest agreement of shuffled pairings, and the p-value of the true one."""
    take = np.linspace(0, len(used) - 1, min(len(used), _PERMUTED_FRAMES)).round().astype(int)
    count = len(take)
    # Every other scale: half the cost, and the true pairing is measured on the same places.
    scales = np.arange(len(LOG_SCALES))[len(LOG_SCALES) // 2 % 2 :: 2]
    # Frames in random order, so that neighbours in a video are seldom paired. Then each contour is
    # paired with the colour k places on, for all k at once: a sum over frames of products k apart
    # is a product of transforms along the frames. As often as it takes to have enough pairings.
    rounds = -(-_LEAST_PERMUTATIONS // (count - 1))
    orders = [rng.permutation(count) for _ in range(rounds)]
    colour = np.stack([correlator.colour_spectrum(used[i]) for i in take])
    colours = [fft.fft(colour[order], axis=0) for order in orders]
    greatest = np.full((rounds, count - 1), -np.inf)
    for scale in scales:
        contours = np.stack([correlator.contour_spectrum(used[i], LOG_SCALES[scale]) for i in take])
        for number, order in enumerate(orders):
            product = (fft.ifft(contours[order], axis=0) * colours[number]).sum(1)
            peaks = [correlator.surface(s).max() for s in fft.ifft(product, axis=0)[1:]]
            greatest[number] = np.maximum(greatest[number], peaks)
    true = stack[take][:, scales].mean(0).max()
    p_value = (1 + np.count_nonzero(greatest >= true)) / (1 + greatest.size)
    return float(np.median(greatest)), float(p_value)


def _in_pixels(
    surface: np.ndarray, best: Sequence[int], radius: int, pixel: float
) -> tuple[float, float]:
    """Shift (right, down) of the peak between the grid points, in pixels of the frame."""
    offsets = []
    for axis in (1, 0):
        place = best[axis]
        shift = float(place - radius)
        if 0 < place < surface.shape[axis] - 1:
            line = surface[best[0]] if axis == 1 else surface[:, best[1]]
            before, peak, after = (float(v) for v in line[place - 1 : place + 2])
            bend = before - 2 * peak + after
            shift += 0.5 * (before - after) / bend if bend < 0 else 0.0
        offsets.append(round(shift * pixel, 2))
    return offsets[0], offsets[1]
