"""Rules about registration: from its statistics to findings."""

from collections.abc import Sequence

from mmmask3d.inspection.findings import Findings
from mmmask3d.inspection.measures import Measures
from mmmask3d.inspection.registration import Registration

_ENOUGH = 20  # frames; the bootstrap of fewer is too sure of itself, above all in one video
_LOOK = 'Look at the contours that mmmask3d browse draws on colour'


def check_registration(
    result: Registration, checked: Sequence[Measures], tolerance: float, found: Findings
) -> None:
    """Report what is wrong with the registration of a set.

    Args:
        result: The registration.
        checked: The frames it was judged by.
        tolerance: What it was judged with.
        found: Where findings are added.
    """
    right, down = result.shift
    files = [m.img_path for m in checked]
    displacement = 'displacement {:.1f} % of the width, 95 %: {:.1f} to {:.1f} %; {} frames'.format(
        *(100 * v for v in (result.displacement, *result.interval)), result.used
    )
    if result.verdict == 'misregistered':
        enlarged = f'enlarged x{result.scale:.2f} about the centre and ' * (result.scale != 1)
        found.add(
            'misregistered',
            'error' if result.used >= _ENOUGH else 'warning',
            f'depth does not lie on colour: its contours fit the colour edges best when depth is '
            f'{enlarged}moved by {right:+.1f} pixels right and {down:+.1f} down (at {result.width} '
            f'pixels width; {displacement})',
            'Register depth to colour with the calibration of the two cameras. The correction '
            'given here is an average over all depths, not a replacement for that.',
            files,
        )
    elif result.verdict == 'unmatched':
        found.add(
            'unmatched',
            'warning',
            f'depth contours and colour edges agree at no shift or scale more than those of '
            f'different frames do ({result.used} frames)',
            f'{_LOOK}: are these pairs of the same moment and the same camera?',
            files,
        )
    elif result.verdict == 'undecided':
        # Around a place that fits, the usual reason is that there are few frames.
        found.add(
            'registration-undecided',
            'note' if result.displacement <= tolerance else 'warning',
            f'the frames do not agree whether depth lies on colour ({displacement})',
            f'Check more frames (--registration-frames). {_LOOK}.',
        )
