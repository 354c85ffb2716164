"""Rules about single files: missing, damaged, of the wrong size, constant, without labels."""

import json
from collections.abc import Sequence

from mmmask3d.inspection.findings import Findings
from mmmask3d.inspection.measures import Measures
from mmmask3d.inspection.sources import Source

_FLAT_COLOUR = 1.0  # grey levels, standard deviation

# Errors: code, what there is of them, advice.
_PER_FILE = {
    'missing-partner': (
        'files that do not exist, though their partner or the index says so',
        "Complete the data or the index; or leave these frames out with on_error='drop'.",
    ),
    'truncated': (
        'files that end too early',
        "Copy or convert them again; or leave these frames out with on_error='drop'.",
    ),
    'damaged': (
        'PNG files that contradict their own checksums',
        "Copy or convert them again; or leave these frames out with on_error='drop'.",
    ),
    'unreadable': (
        'files that cannot be read',
        'Convert them to what is expected; check the folders and suffixes.',
    ),
    'size-mismatch': (
        'frames whose colour and depth differ in size',
        'Register depth to colour and resize it with nearest, never linear (the converters do).',
    ),
    'no-reading': (
        'depth maps without a reading',
        'Check depth_scale, min_depth, max_depth and depth_invalid; or leave these frames out '
        "with on_error='drop'.",
    ),
    'confidence-unusable': (
        'confidence maps that cannot be used',
        'Expected one channel, of the size of depth or a whole fraction of it both ways.',
    ),
    'label-range': (
        'label maps with ids outside the classes',
        'Use the label folder of this class set, or map the ids; 0 is unlabelled, 1 the first '
        'class.',
    ),
    'label-unreadable': (
        'label or instance maps that cannot be read',
        'Expected single-channel PNG of class ids (8 bits) or instance ids (8 or 16 bits); '
        'colour-coded pictures have to be converted.',
    ),
    'label-size': (
        'label or instance maps that differ in size from the colour image',
        'Resize them with nearest.',
    ),
}


def check_files(source: Source, measures: Sequence[Measures], found: Findings) -> None:
    """Apply all rules of this module to the frames of a set."""
    _per_file(source, measures, found)
    _passed_over(source, found)
    _constant(measures, found)
    _unlabelled(source, measures, found)
    _annotations(source, found)


def _per_file(source: Source, measures: Sequence[Measures], found: Findings) -> None:
    problems = [problem for m in measures for problem in m.problems]
    for code, (what, advice) in _PER_FILE.items():
        files = [p.file for p in problems if p.code == code]
        details = [p.message for p in problems if p.code == code]
        if code == 'missing-partner':
            files = source.frames.noted['missing'] + files
            details = ['does not exist'] * len(files)
        if files:
            found.add(code, 'error', f'{what}: {len(files)}', advice, files, details)


def _passed_over(source: Source, found: Findings) -> None:
    left, links = (source.frames.noted[kind] for kind in ('left_over', 'links'))
    if left:
        found.add(
            'left-over',
            'warning',
            f'pictures that are no frames because of their suffix: {len(left)}',
            'Give their suffix with --img-suffix and --depth-suffix, or in a data set of their '
            'own (ConcatDataset); or move them away.',
            left,
        )
    if links:
        found.add(
            'repeated-link',
            'note',
            f'links to folders that are listed already or hold them: {len(links)}',
            'Nothing to do: their frames are taken once.',
            links,
        )


def _constant(measures: Sequence[Measures], found: Findings) -> None:
    found.add_frames(
        'constant-colour',
        'warning',
        'colour images of one colour all over',
        'The camera was covered or the file is a placeholder: leave these frames out of the index.',
        [m for m in measures if m.size is not None and m.spread < _FLAT_COLOUR],
        lambda m: f'standard deviation {m.spread:.2f} grey levels',
        colour=True,
    )
    found.add_frames(
        'constant-depth',
        'warning',
        'depth maps of one value all over',
        'There is nothing to learn from them: leave these frames out of the index.',
        [m for m in measures if m.depth is not None and m.depth.low == m.depth.high],
        lambda m: f'{m.readings.low:g} everywhere',
    )


def _unlabelled(source: Source, measures: Sequence[Measures], found: Findings) -> None:
    kinds = [maps.kind for maps in source.labels] + (['instance'] if source.instances else [])
    for kind in kinds:
        lacking = [m for m in measures if kind in m.unlabelled]
        if lacking:
            found.add(
                'unlabelled',
                'note',
                f'frames without {kind} map: {len(lacking)} of {len(measures)}',
                'Nothing to do for pre-training; the splits for fine-tuning must not name them.',
                [m.img_path for m in lacking],
            )


def _annotations(source: Source, found: Findings) -> None:
    for path in source.annotations.values():
        try:
            with open(path, 'rb') as file:
                content = json.load(file)
            images, known = ({i['id'] for i in content[k]} for k in ('images', 'categories'))
            others = {a['image_id'] for a in content['annotations']} - images
            strange = {a['category_id'] for a in content['annotations']} - known
        except (OSError, ValueError, KeyError, TypeError) as error:
            code = 'annotation-unreadable'
            what = f'is no COCO file ({type(error).__name__}: {error})'
        else:
            if not others and not strange:
                continue
            code = 'annotation-ids'
            what = (
                f'has annotations of {len(others)} images and of categories '
                f'{sorted(strange, key=str)} that it does not list'
            )
        found.add(code, 'error', f'{path} {what}', 'Copy or convert it again.', [path])
