"""Contact sheets of frames, as they are stored and as the network sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmask3d.atomic_file import write_file
from mmmask3d.datasets.depth_io import FrameError, decode_depth
from mmmask3d.datasets.masking_config import hand_masking_to, masking_defaults, resolve_masking
from mmmask3d.datasets.sampling import EpochIndex
from mmmask3d.datasets.transforms.loading import LoadRGBD
from mmmask3d.inspection.instances import InstanceReader
from mmmask3d.inspection.measures import spread_indices
from mmmask3d.inspection.sources import Source, SourceOptionsError, rgbd_configs
from mmmask3d.registry import DATASETS, MODELS
from mmmask3d.visualization.contact_sheet import Labels, frame_strip, message_strip
from mmmask3d.visualization.html_page import Markup, Row, element, filtered, page, picture, table
from mmmask3d.visualization.panels import reconstruction_panel, stack_panels, write_png

_MANY_HOLES = 0.3


@dataclass
class Drawn:
    """A drawn frame."""

    source: str  # title of its set
    index: int  # in the set
    frame: str
    picture: np.ndarray  # RGB uint8 (H, W, 3)
    figures: dict[str, str] = field(default_factory=dict)  # for the table
    kinds: list[str] = field(default_factory=list)  # of 'holes', 'unlabelled', 'failed'
    error: str = ''  # why it could not be drawn


def choose(total: int, num: int, wanted: Sequence[int] | None) -> Sequence[int]:
    """Indices asked for, or ``num`` spread evenly over ``total``."""
    if wanted is None:
        return spread_indices(total, num)
    wrong = [i for i in wanted if not 0 <= i < total]
    if wrong:
        raise SourceOptionsError(f'--index {wrong}: there are {total} frames, 0 to {total - 1}.')
    return wanted


# ---------------------------------------------------------------- as stored


def draw_frames(
    sources: Sequence[Source],
    num: int,
    wanted: Sequence[int] | None = None,
    columns: int | None = None,
) -> list[Drawn]:
    """Draw frames of sets as they are stored.

    Args:
        sources: The sets; ``num`` frames of all of them together, spread by their sizes.
        num: Number of frames.
        wanted: Indices instead, over all sets one after the other.
        columns: Pictures per row; None for all in one.
    """
    ends = np.cumsum([len(source.frames) for source in sources])
    drawn = []
    readers = [InstanceReader(source) for source in sources]
    for index in choose(int(ends[-1]), num, wanted):
        number = int(np.searchsorted(ends, index, side='right'))
        inner = index - int(ends[number] - len(sources[number].frames))
        drawn.append(_draw_frame(sources[number], readers[number], inner, columns))
    return drawn


def _draw_frame(source: Source, reader: InstanceReader, index: int, columns: int | None) -> Drawn:
    info = source.frames.get_data_info(index)
    name = info['frame']
    try:
        frame = LoadRGBD(backend_args=source.backend_args)(dict(info))
        labels = [
            Labels(maps.kind, maps.from_one(_read_labels(maps.path(name))), maps.classes)
            for maps in source.labels
            if Path(maps.path(name)).exists()
        ]
        instances = reader.read(name, info['img_path'])
        depth, valid = frame['depth'], frame['valid']
        strip = frame_strip(
            np.ascontiguousarray(frame['img'][..., ::-1]),
            depth,
            valid,
            unit=source.unit,
            labels=labels,
            instances=instances,
            caption=name,
            columns=columns,
        )
    except (FrameError, OSError, ValueError) as error:
        return _failed(source.title, index, name, str(error))
    invalid = 1 - np.count_nonzero(valid) / valid.size
    readings, unit = depth[valid], ' m' if source.metric else ''
    figures = {
        'size': f'{depth.shape[1]}x{depth.shape[0]}',
        'without a reading': f'{invalid:.1%}',
        'nearest': f'{readings.min():.2f}{unit}',
        'median': f'{np.median(readings):.2f}{unit}',
        'farthest': f'{readings.max():.2f}{unit}',
    }
    for maps in labels:
        figures[f'{maps.title} unlabelled'] = f'{np.isin(maps.ids, (0, 255)).mean():.1%}'
    if instances is not None:
        figures['instances'] = str(len(np.unique(instances[instances > 0])))
    kinds = ['holes'] if invalid > _MANY_HOLES else []
    if source.labels and len(labels) < len(source.labels):
        kinds.append('unlabelled')
    return Drawn(source.title, index, name, strip, figures, kinds)


def _failed(source: str, index: int, frame: str, error: str) -> Drawn:
    picture = message_strip(f'{frame}: {error}')
    return Drawn(source, index, frame, picture, kinds=['failed'], error=error)


def _read_labels(path: str) -> np.ndarray:
    labels = decode_depth(Path(path).read_bytes(), path)
    if labels.dtype != np.uint8:
        raise FrameError(f'{path}: expected a label map of 8 bits, found {labels.dtype}.')
    return labels


# ---------------------------------------------------------------- as the network sees them


def draw_pipeline(
    cfg: Config,
    split: str,
    num: int,
    wanted: Sequence[int] | None = None,
    draws: int = 3,
    seed: int = 0,
    columns: int | None = None,
) -> list[Drawn]:
    """Draw frames after the pipeline of a config, with its masks.

    Draw k of a frame is what a run of this seed sees of it in epoch k.

    Args:
        cfg: The config.
        split: 'train', 'val' or 'test'.
        num: Number of frames, spread over the set.
        wanted: Indices instead.
        draws: Draws per frame.
        seed: Seed of the run.
        columns: Pictures per row; None for all in one.

    Raises:
        SourceOptionsError: The config has no such set, its pipeline gives no masks, or its
            ``masking`` is wrong.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        raise SourceOptionsError(f'{cfg.filename} has no {split}_dataloader.')
    list(rgbd_configs(loader['dataset'], f'{cfg.filename}: {split}_dataloader'))
    init_default_scope(cfg.get('default_scope', 'mmmask3d'))
    try:
        resolve_masking(cfg)
        dataset = DATASETS.build(loader['dataset'])
        if 'patch_size' not in masking_defaults(cfg) and cfg.get('model'):
            with torch.device('meta'):  # the encoder itself says it
                model = MODELS.build(cfg.model)
            hand_masking_to(dataset, masking_defaults(cfg, model))
    except (FileNotFoundError, ValueError) as error:
        raise SourceOptionsError(str(error)) from error
    drawn = []
    for index in choose(len(dataset), num, wanted):
        for draw in range(draws):
            drawn.append(_draw_sample(dataset, split, index, draw, seed, columns))
    return drawn


def _draw_sample(
    dataset: Any, split: str, index: int, draw: int, seed: int, columns: int | None
) -> Drawn:
    try:
        packed = dataset[EpochIndex(index, draw, seed=seed)]
    except (FrameError, OSError) as error:
        return _failed(split, index, f'index {index}', str(error))
    inputs, meta = packed['inputs'], packed['data_samples'].metainfo
    if 'grid' not in meta or 'rgb_mask' not in inputs or 'depth_mask' not in inputs:
        raise SourceOptionsError(
            f'the pipeline of {split}_dataloader draws no masks: it needs DepthAwareMasking before '
            f'PackRGBDInputs. Leave --pipeline out to see the frames as they are stored.'
        )
    rgb = np.ascontiguousarray(inputs['img'].numpy().transpose(1, 2, 0)[..., ::-1])
    height, width = rgb.shape[:2]
    depth, valid = inputs['depth'][0].numpy(), inputs['valid'][0].numpy()
    rgb_mask, depth_mask = inputs['rgb_mask'].numpy(), inputs['depth_mask'].numpy()
    rows, tokens = meta['grid']
    relative = meta.get('depth_kind') == 'relative'
    name = str(meta.get('frame', index))
    panel = reconstruction_panel(
        rgb,
        patch_size=height // rows,
        depth=depth,
        valid=valid,
        rgb_mask=rgb_mask,
        depth_mask=depth_mask,
        unit='relative' if relative else 'm',
        columns=columns or 4,
        caption=f'{name}, draw {draw + 1}',
    )
    invalid = 1 - np.count_nonzero(valid) / valid.size
    figures = {
        'draw': str(draw + 1),
        'size': f'{width}x{height}',
        'patches': f'{rows}x{tokens}',
        'RGB removed': f'{rgb_mask.mean():.1%}',
        'depth removed': f'{depth_mask.mean():.1%}',
        'without a reading': f'{invalid:.1%}',
    }
    return Drawn(split, index, name, panel, figures, ['holes'] if invalid > _MANY_HOLES else [])


# ---------------------------------------------------------------- files


def write_pictures(drawn: Sequence[Drawn], out_dir: Path, rows: int, title: str) -> list[Path]:
    """Write the sheets as PNG and all frames as one HTML page.

    Args:
        drawn: The frames.
        out_dir: Folder; ``sheet_01.png``, ... and ``index.html`` in it are replaced.
        rows: Frames on a sheet.
        title: Of the page.

    Returns:
        The files, the page last.
    """
    files = []
    for number, start in enumerate(range(0, len(drawn), rows), 1):
        sheet = stack_panels([one.picture for one in drawn[start : start + rows]])
        files.append(write_png(out_dir / f'sheet_{number:02d}.png', sheet))
    files.append(write_file(out_dir / 'index.html', as_page(drawn, title)))
    return files


def as_page(drawn: Sequence[Drawn], title: str) -> bytes:
    """All frames on a page: a table of their figures, and the pictures."""
    names = list(dict.fromkeys(name for one in drawn for name in one.figures))
    sets = len({one.source for one in drawn}) > 1
    rows, figures = [], []
    for number, one in enumerate(drawn):
        link = element('a', one.frame, href=f'#frame-{number}')
        cells: list[object] = [one.index, link, *(one.figures.get(name, '') for name in names)]
        rows.append(Row([one.source, *cells] if sets else cells, one.kinds))
        figures.append(_figure(number, one))
    labels = {
        'holes': f'more than {_MANY_HOLES:.0%} without a reading',
        'unlabelled': 'without labels',
        'failed': 'cannot be drawn',
    }
    kinds = {k: label for k, label in labels.items() if any(k in one.kinds for one in drawn)}
    headings = [*(['set'] if sets else []), 'index', 'frame', *names]
    content: list[Markup] = [table(headings, rows), *figures]
    return page(
        f'Frames of {title}', filtered(kinds, *content) if kinds else Markup(''.join(content))
    )


def _figure(number: int, one: Drawn) -> Markup:
    caption = element('figcaption', f'{one.source}, {one.index}: {one.frame}')
    shown = element('p', one.error) if one.error else picture(one.picture, one.frame)
    return element(
        'figure', caption, shown, id=f'frame-{number}', class_=' '.join(['item', *one.kinds])
    )
