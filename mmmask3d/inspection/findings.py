"""What a check found: errors, warnings and notes, each with files and advice.

An *error* is something that a training run would stop at, or that makes what it learns wrong. A
*warning* is something that is usually a mistake and may be meant. A *note* is a property worth
knowing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mmmask3d.inspection.measures import Measures

LEVELS = ('error', 'warning', 'note')


@dataclass(frozen=True)
class Finding:
    """One thing to know about a set."""

    code: str  # what it is, stable
    level: str
    source: str  # title of the set
    message: str  # what was found
    advice: str  # what to do
    files: tuple[str, ...] = ()
    details: tuple[str, ...] = ()  # of each file, where they differ


@dataclass
class Findings:
    """The findings of one set, as they come."""

    source: str  # its title
    found: list[Finding] = field(default_factory=list)

    def add(
        self,
        code: str,
        level: str,
        message: str,
        advice: str,
        files: Sequence[str] = (),
        details: Sequence[str] = (),
    ) -> None:
        """Add a finding; see :class:`Finding`."""
        self.found.append(
            Finding(code, level, self.source, message, advice, tuple(files), tuple(details))
        )

    def add_frames(
        self,
        code: str,
        level: str,
        what: str,
        advice: str,
        frames: Sequence[Measures],
        detail: Callable[[Measures], str],
        colour: bool = False,
    ) -> None:
        """Add a finding about the colour or depth files of some frames, if there are any."""
        if frames:
            files = [m.img_path if colour else m.depth_path for m in frames]
            self.add(
                code, level, f'{what}: {len(frames)}', advice, files, list(map(detail, frames))
            )


def by_level(found: Sequence[Finding]) -> list[Finding]:
    """Errors first, otherwise in the order they came."""
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
