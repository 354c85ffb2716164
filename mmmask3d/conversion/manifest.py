"""The index files of a finished conversion: splits, COCO files and the manifest."""

import json
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmmask3d.conversion.coco import coco_content
from mmmask3d.conversion.converter import Converter
from mmmask3d.conversion.storage import OutputFolder
from mmmask3d.version import __version__

MANIFEST = 'manifest.json'
FRAMES = 'frames.jsonl'


def label_ids(converter: Converter, kind: str) -> dict[int, str]:
    """Ids and what they mean of a label folder, the id of unlabelled pixels first."""
    first = converter.first_ids.get(kind, 1)
    ids = {converter.ignore_ids.get(kind, 0): 'unlabelled'}
    ids.update(enumerate(converter.classes[kind], first))
    return ids


def finish(
    converter: Converter,
    output: OutputFolder,
    identity: dict,
    names: dict[str, str],
    problems: list[str],
    limit: int | None,
) -> dict:
    """Write index files, COCO files, what else is known of frames and, last, the manifest."""
    extras = {name: output.records[name].get('extra', {}) for name in names}
    files: dict[str, bytes] = {}
    splits = {}
    for split, listed in converter.splits(names).items():
        lines = (converter.index_line(name, extras[name]) for name in listed)
        files[f'splits/{split}.txt'] = ''.join(f'{line}\n' for line in lines).encode()
        splits[split] = {'frames': len(listed)}
        if converter.categories:
            file, folder = converter.annotation_file(split)
            content = _coco(converter, output, listed, folder)
            splits[split]['instances'] = len(content['annotations'])
            files[file] = (json.dumps(content) + '\n').encode()
    if any(extras.values()):
        lines = (json.dumps({'name': name, **extra}) for name, extra in extras.items())
        files[FRAMES] = ''.join(f'{line}\n' for line in lines).encode()
    files |= converter.extra_files(names)
    noted = output.write_index(files)
    manifest = {
        **identity,
        'title': converter.title,
        'mmmask3d': __version__,
        'source': os.path.basename(os.path.abspath(converter.source)),
        'frames': len(names),
        'splits': splits,
        'depth_kind': converter.depth_kind,
        'depth_scale': converter.depth_scale,
        'folders': {kind: converter.folders.get(kind, kind) for kind in converter.suffixes},
        'suffixes': dict(converter.suffixes),
        'rgbd_dataset': converter.dataset_settings(),
        'classes': {kind: list(classes) for kind, classes in converter.classes.items()},
        'first_ids': {kind: converter.first_ids.get(kind, 1) for kind in converter.classes},
        'ignore_ids': {kind: converter.ignore_ids.get(kind, 0) for kind in converter.classes},
        'limit': limit,
        'left_out': problems,
        **_sum_up(converter, [output.records[name] for name in names]),
        'crc32': {name: crc for name, (_, crc) in noted.items()},
    }
    output.write(MANIFEST, (json.dumps(manifest, indent=2) + '\n').encode())
    return manifest


def _coco(converter: Converter, output: OutputFolder, names: Sequence[str], folder: str) -> dict:
    frames = []
    outer = f'{folder}/' if folder else ''
    for name in names:
        record = output.records[name]
        file = name.removeprefix(outer) + converter.suffixes['rgb']
        frames.append((file, *record['size'], record.get('instances', [])))
    return coco_content(frames, converter.categories, f'{converter.title}, instances')


def _sum_up(converter: Converter, records: Sequence[dict]) -> dict:
    """Statistics of depth and labels over all frames."""
    depth, labels = {}, {}
    kinds = sorted({kind for record in records for kind in record['measures']})
    for kind in kinds:
        found = [r['measures'][kind] for r in records if kind in r['measures']]
        if kind.startswith('depth'):
            depth[kind] = {
                'frames': len(found),
                'invalid_share': round(float(np.mean([f['invalid'] for f in found])), 4),
                'low': min(f['low'] for f in found) / converter.depth_scale,
                'median': float(np.median([f['median'] for f in found])) / converter.depth_scale,
                'high': max(f['high'] for f in found) / converter.depth_scale,
            }
            unsure = [f['unsure'] for f in found if 'unsure' in f]
            if unsure:
                depth[kind]['unsure_share'] = round(float(np.mean(unsure)), 4)
        elif kind in converter.classes:
            pixels: Counter[int] = Counter()
            for f in found:
                pixels.update({int(i): n for i, n in f['pixels'].items()})
            total = sum(pixels.values())
            ids = label_ids(converter, kind)
            labels[kind] = {c: round(pixels[i] / total, 6) for i, c in ids.items()}
    return {'depth': depth, 'pixel_share': labels}
