"""Generate RGB-D frames of furnished rooms with semantic and instance labels.

    python tools/dataset_converters/generate_rooms.py --out data/rooms --seed 0 --rooms 60 --views 8

The result depends on the seed and the sizes only, not on the number of workers. A call that was
interrupted is taken up by the same call; docs/datasets/rooms.md describes the folder.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import multiprocessing
import os
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

# One process per worker: threads inside numpy would compete. Set before numpy is imported.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mmmask3d.conversion.rooms.camera import FOCAL, choose_views
from mmmask3d.conversion.rooms.render import Renderer, Tracer
from mmmask3d.conversion.rooms.scene import build_room
from mmmask3d.conversion.rooms.sensor import Sensor, measure
from mmmask3d.conversion.rooms.shapes import CLASSES, STUFF

# Raise it when the same options give other frames: a folder made before is then not added to.
VERSION = 1
SMALLEST_INSTANCE = 30  # pixels; smaller parts stay in the maps and are left out of the COCO files
JPEG_QUALITY = 94
SUFFIXES = {'rgb': '.jpg', 'depth': '.png', 'semantic': '.png', 'instance': '.png'}
PALETTE = np.array(
    [(0, 0, 0)]
    + [
        tuple(int(255 * c) for c in colorsys.hsv_to_rgb(k * 0.618 % 1, 0.7, (1, 0.75, 0.5)[k % 3]))
        for k in range(len(CLASSES))
    ],
    np.uint8,
)


class OptionsError(ValueError):
    """The folder, or an option, does not allow what was asked for."""


@dataclass(frozen=True)
class Options:
    """What decides the bytes of a data set.

    Attributes:
        seed: Seed of everything random.
        rooms: Number of rooms.
        views: Frames per room.
        val_rooms: How many of the rooms, the last ones, are for validation.
        size: Width and height in pixels.
    """

    seed: int
    rooms: int
    views: int
    val_rooms: int
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise OptionsError(f'--seed must be 0 or more, got {self.seed}')
        if self.rooms < 1 or self.views < 1:
            raise OptionsError(
                f'--rooms and --views must be at least 1, got {self.rooms} and {self.views}'
            )
        if not 0 <= self.val_rooms < self.rooms:
            raise OptionsError(
                f'--val-rooms must be 0 or more and leave a room for training: got '
                f'{self.val_rooms} of {self.rooms} rooms'
            )
        if min(self.size) < 32 or max(self.size) > 2048:
            raise OptionsError(
                f'--size must be between 32 and 2048 pixels, got {self.size[0]} x {self.size[1]}'
            )

    def record(self) -> dict:
        """Return the options as they stand in meta.json."""
        return {
            'generator_version': VERSION,
            'seed': self.seed,
            'rooms': self.rooms,
            'views': self.views,
            'val_rooms': self.val_rooms,
            'size': list(self.size),
        }

    def names(self, room: int) -> list[str]:
        """Return the frame names of a room."""
        return [f'room_{room:04d}_view_{view:02d}' for view in range(self.views)]

    def splits(self) -> dict[str, range]:
        """Return the rooms of each split."""
        first = self.rooms - self.val_rooms
        return {'train': range(first), 'val': range(first, self.rooms)}


def _write(path: Path, data: bytes) -> int:
    """Write a file so that it is either complete or absent, and return its checksum."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return zlib.crc32(data)


def _write_json(path: Path, content: dict, indent: int | None = None) -> int:
    return _write(path, (json.dumps(content, indent=indent) + '\n').encode())


def _unchanged(folder: Path, checksums: dict[str, int]) -> bool:
    """Return whether all of these files are there as they were written."""
    paths = {folder / name: crc for name, crc in checksums.items()}
    return all(p.is_file() and zlib.crc32(p.read_bytes()) == crc for p, crc in paths.items())


def _encode(image: np.ndarray, suffix: str) -> bytes:
    if suffix == '.jpg':
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    else:
        options = [cv2.IMWRITE_PNG_COMPRESSION, 3]
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise RuntimeError(f'OpenCV could not encode an image of shape {image.shape} as {suffix}')
    return data.tobytes()


def _files(out: Path, name: str) -> dict[str, Path]:
    return {kind: out / kind / (name + suffix) for kind, suffix in SUFFIXES.items()}


def read_frame_record(out: Path, name: str) -> dict | None:
    """Return the record of a complete frame; None if a file is missing, cut short or changed."""
    try:
        record = json.loads((out / 'frames' / f'{name}.json').read_text())
        checksums = record['crc32']
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None
    return record if _unchanged(out, checksums) else None


def make_room(out: Path, options: Options, room: int, names: list[str]) -> list[str]:
    """Render the frames ``names`` of one room; each of them depends on seed, room and view only."""
    cv2.setNumThreads(1)
    sensor = Sensor()
    rng = np.random.default_rng([options.seed, room, 0])
    scene = build_room(rng)
    tracer = Tracer(scene)
    renderer = Renderer(scene, tracer)
    cameras = choose_views(scene, tracer, rng, options.views, options.size)
    for view, (name, camera) in enumerate(zip(options.names(room), cameras, strict=True)):
        if name not in names:
            continue
        rng = np.random.default_rng([options.seed, room, 1, view])
        frame = renderer.render(camera, rng)
        depth = measure(frame.depth, frame.cosine, frame.infrared, camera.focal, rng, sensor)
        images = {
            'rgb': frame.colour[..., ::-1],
            'depth': depth,
            'semantic': frame.semantic,
            'instance': frame.instance,
        }
        checksums = {}
        for kind, path in _files(out, name).items():
            data = _encode(images[kind], SUFFIXES[kind])
            checksums[path.relative_to(out).as_posix()] = _write(path, data)
        # Last, as it says that the frame is complete.
        record = {
            'camera_to_world': camera.pose().round(6).tolist(),
            'invalid_share': round(float((depth == 0).mean()), 5),
            'pixels': np.bincount(frame.semantic.ravel(), minlength=len(CLASSES) + 1).tolist(),
            'crc32': checksums,
        }
        _write_json(out / 'frames' / f'{name}.json', record)
    return names


def _make_room(task: tuple[Path, Options, int, list[str]]) -> list[str]:
    try:
        return make_room(*task)
    except Exception as error:
        raise RuntimeError(f'room {task[2]} with seed {task[1].seed}: {error}') from error


def run_length(mask: np.ndarray) -> list[int]:
    """Return COCO's uncompressed run lengths of a (H, W) mask: column-major, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(flat))
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    return runs if runs[-1] else runs[:-1]


def annotate(semantic: np.ndarray, instance: np.ndarray) -> list[dict]:
    """Return the COCO annotations, without ids, of the things in one frame.

    Args:
        semantic: (H, W) class index + 1.
        instance: (H, W) thing index + 1.
    """
    found = []
    pixels = np.bincount(instance.ravel())
    for thing in np.flatnonzero(pixels >= SMALLEST_INSTANCE):
        if thing == 0:
            continue
        mask = instance == thing
        category = int(semantic[mask][0])
        if CLASSES[category - 1] in STUFF:
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        found.append(
            {
                'category_id': category,
                'bbox': [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                'area': int(pixels[thing]),
                'segmentation': {'size': list(mask.shape), 'counts': run_length(mask)},
                'iscrowd': 0,
            }
        )
    return found


def _coco(out: Path, options: Options, rooms: range) -> dict:
    """Return the COCO content of some rooms, from their stored label maps."""
    images, annotations = [], []
    width, height = options.size
    for room in rooms:
        for view, name in enumerate(options.names(room)):
            image_id = room * options.views + view + 1
            images.append(
                {'id': image_id, 'file_name': f'{name}.jpg', 'width': width, 'height': height}
            )
            files = _files(out, name)
            semantic = cv2.imread(str(files['semantic']), cv2.IMREAD_UNCHANGED)
            instance = cv2.imread(str(files['instance']), cv2.IMREAD_UNCHANGED)
            for annotation in annotate(semantic, instance):
                ids = {'id': len(annotations) + 1, 'image_id': image_id}
                annotations.append(ids | annotation)
    categories = [
        {'id': index + 1, 'name': name, 'supercategory': 'indoor'}
        for index, name in enumerate(CLASSES)
        if name not in STUFF
    ]
    return {
        'info': {'description': 'Generated RGB-D rooms', 'version': str(VERSION)},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }


def _finish(out: Path, options: Options, records: dict[str, dict]) -> dict:
    """Write splits, COCO files and the final meta.json, and return the latter's content."""
    meta = {
        **options.record(),
        'complete': True,
        'classes': list(CLASSES),
        'depth_scale': 1000.0,
        'camera': {
            'fx': FOCAL * options.size[0],
            'fy': FOCAL * options.size[0],
            'cx': options.size[0] / 2,
            'cy': options.size[1] / 2,
        },
        'sensor': Sensor().options(),
        'splits': {},
        'crc32': {},
    }
    for split, rooms in options.splits().items():
        names = [name for room in rooms for name in options.names(room)]
        coco = _coco(out, options, rooms)
        lines = ''.join(f'{name}\n' for name in names).encode()
        crc = _write(out / 'splits' / f'{split}.txt', lines)
        meta['crc32'][f'splits/{split}.txt'] = crc
        crc = _write_json(out / 'annotations' / f'instances_{split}.json', coco)
        meta['crc32'][f'annotations/instances_{split}.json'] = crc
        pixels = np.sum([records[name]['pixels'] for name in names] or [[0] * 14], axis=0)
        invalid = [records[name]['invalid_share'] for name in names]
        share = pixels[1:] / max(1, pixels.sum())
        meta['splits'][split] = {
            'rooms': len(rooms),
            'frames': len(names),
            'instances': len(coco['annotations']),
            'invalid_share': round(float(np.mean(invalid)), 4) if invalid else None,
            'pixel_share': {n: round(float(s), 5) for n, s in zip(CLASSES, share, strict=True)},
        }
    _write_json(out / 'meta.json', meta, indent=2)
    return meta


def _open_folder(out: Path, options: Options) -> dict:
    """Prepare the folder and return the content of its meta.json.

    Raises:
        OptionsError: It holds something else, or was made with other options.
    """
    wanted, path = options.record(), out / 'meta.json'
    if path.exists():
        try:
            meta = json.loads(path.read_text())
            found = {key: meta[key] for key in wanted}
        except (json.JSONDecodeError, KeyError) as error:
            raise OptionsError(
                f'{path} is not a description of generated rooms ({error}). Choose another folder '
                'for --out, or remove this one.'
            ) from error
        differing = [
            f'{k} {found[k]} (asked for: {wanted[k]})' for k in wanted if found[k] != wanted[k]
        ]
        if differing:
            raise OptionsError(
                f'{out} was made with {", ".join(differing)}. Give the same options to go on with '
                'it, or another folder for --out, or remove this one.'
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OptionsError(
            f'{out} exists and has no meta.json, so it was not made by this tool. Choose a new or '
            'empty folder for --out.'
        )
    else:
        meta = {**wanted, 'complete': False}
    for folder in (*SUFFIXES, 'frames', 'splits', 'annotations'):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for leftover in (out / folder).glob('.*.tmp'):
            leftover.unlink()
    if not path.exists():
        _write_json(path, meta, indent=2)
    return meta


def generate(out: Path, options: Options, workers: int = 1) -> tuple[dict, int]:
    """Make the data set, or what is missing of it.

    Returns:
        The content of meta.json and the number of frames that had to be rendered.

    Raises:
        OptionsError: The folder was made with other options, or by something else.
    """
    from tqdm import tqdm

    if workers < 1:
        raise OptionsError(f'--workers must be at least 1, got {workers}')
    meta = _open_folder(out, options)
    names = [name for room in range(options.rooms) for name in options.names(room)]
    records = {name: read_frame_record(out, name) for name in names}
    missing = {name for name in names if records[name] is None}
    tasks = []
    for room in range(options.rooms):
        todo = [name for name in options.names(room) if name in missing]
        if todo:
            tasks.append((out, options, room, todo))
    if missing and len(missing) < len(names):
        print(f'{out}: {len(names) - len(missing)} of {len(names)} frames are there, going on')
    if tasks:
        with tqdm(total=len(missing), unit='frame', desc='rooms') as bar:
            if workers == 1:
                for task in tasks:
                    bar.update(len(_make_room(task)))
            else:
                # spawn: a forked copy of a process that has used OpenCV's threads may hang.
                context = multiprocessing.get_context('spawn')
                with context.Pool(min(workers, len(tasks))) as pool:
                    for made in pool.imap_unordered(_make_room, tasks):
                        bar.update(len(made))
    if not missing and meta['complete'] and _unchanged(out, meta['crc32']):
        return meta, 0
    for name in missing:
        records[name] = read_frame_record(out, name)
    return _finish(out, options, records), len(missing)


def contact_sheet(out: Path, options: Options, path: Path, rows: int = 12) -> None:
    """Write a PNG of frames from all over the set: RGB, depth (black: no reading), semantic."""
    names = [name for room in range(options.rooms) for name in options.names(room)]
    count = min(len(names), 2 * rows)
    strips = []
    for index in np.linspace(0, len(names) - 1, count).round().astype(int):
        files = _files(out, names[index])
        colour = cv2.imread(str(files['rgb']))
        depth = cv2.imread(str(files['depth']), cv2.IMREAD_UNCHANGED)
        semantic = cv2.imread(str(files['semantic']), cv2.IMREAD_UNCHANGED)
        scaled = np.clip(255 - depth / (1000 * Sensor().farthest) * 255, 0, 255).astype(np.uint8)
        shown = cv2.applyColorMap(scaled, cv2.COLORMAP_TURBO)
        shown[depth == 0] = 0
        strips.append(np.hstack([colour, shown, PALETTE[semantic][..., ::-1]]))
    if len(strips) % 2:
        strips.append(np.zeros_like(strips[0]))
    pairs = [np.hstack(strips[k : k + 2]) for k in range(0, len(strips), 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, _encode(np.vstack(pairs), '.png'))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description='Generate RGB-D frames of furnished rooms with labels.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('--out', type=Path, default=Path('data/rooms'), help='folder to fill')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--rooms', type=int, default=60, help='number of rooms')
    parser.add_argument('--views', type=int, default=8, help='frames per room')
    parser.add_argument('--val-rooms', type=int, default=12, help='rooms kept for validation')
    parser.add_argument(
        '--workers', type=int, default=2, help='processes; no influence on the result'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, default=(320, 240), metavar=('WIDTH', 'HEIGHT')
    )
    parser.add_argument(
        '--contact-sheet', type=Path, metavar='PNG', help='write an overview picture'
    )
    given = parser.parse_args(arguments)
    try:
        options = Options(given.seed, given.rooms, given.views, given.val_rooms, tuple(given.size))
        meta, made = generate(given.out, options, given.workers)
    except OptionsError as error:
        parser.error(str(error))
    total = options.rooms * options.views
    if made:
        print(f'{given.out}: made {made} of {total} frames')
    else:
        print(f'{given.out}: all {total} frames are there, nothing to do')
    for split, content in meta['splits'].items():
        if not content['frames']:
            continue
        print(
            f'  {split}: {content["frames"]} frames of {content["rooms"]} rooms, '
            f'{content["instances"]} instances, no depth reading at '
            f'{100 * content["invalid_share"]:.1f} % of the pixels'
        )
    if given.contact_sheet:
        contact_sheet(given.out, options, given.contact_sheet)
        print(f'  contact sheet: {given.contact_sheet}')


if __name__ == '__main__':
    main()
