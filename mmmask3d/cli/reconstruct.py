"""Draw what a pre-trained network reconstructs: one PNG per frame, and all of them on a sheet.

Example:
    python tools/analysis_tools/visualize_reconstruction.py CONFIG CHECKPOINT --out-dir pictures
"""

# ruff: noqa: E402
from mmmask3d.preflight import check_environment

check_environment()  # plain words before an import below fails

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.config_files import read_config_file
from mmmask3d.registry import DATASETS, MODELS
from mmmask3d.visualization import panel_of_sample, stack_panels, write_png


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='pre-training config')
    parser.add_argument('checkpoint', help='checkpoint of the whole pre-training model')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument('--num', type=int, default=8, help='frames, spread over the split')
    parser.add_argument('--index', type=int, nargs='+', help='frames by index instead')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='val')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0, help='for --split train, which is random')
    parser.add_argument(
        '--paste-kept', action='store_true', help='show the kept readings in the prediction'
    )
    parser.add_argument('--columns', type=int, help='tiles per row (default: two rows)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides, as for tools/train.py'
    )
    args = parser.parse_args(argv)
    if args.num < 1:
        parser.error(f'--num is {args.num}, expected at least 1')
    return args


def choose_indices(total: int, num: int, wanted: list[int] | None) -> list[int]:
    """Indices of the frames to draw: those asked for, or ``num`` spread evenly over ``total``.

    Raises:
        ValueError: If there is no frame, or an index asked for does not exist.
    """
    if total == 0:
        raise ValueError('the data set is empty: check data_root and ann_file of the split')
    if wanted is None:
        return sorted({round(i) for i in np.linspace(0, total - 1, min(num, total))})
    wrong = [i for i in wanted if not 0 <= i < total]
    if wrong:
        raise ValueError(f'--index {wrong}: the split has {total} frames, 0 to {total - 1}')
    return wanted


def load_model(cfg: Config, checkpoint: str, device: str) -> torch.nn.Module:
    """Build the model of a config and load a checkpoint of exactly its keys.

    Raises:
        RuntimeError: If the checkpoint belongs to another model.
    """
    # The weights are all in the checkpoint: what init_cfg names need not exist here.
    model_cfg = cfg.model.copy()
    model_cfg.pop('init_cfg', None)
    if isinstance(model_cfg.get('backbone'), dict):
        model_cfg.backbone.pop('init_cfg', None)
    model = MODELS.build(model_cfg)
    content = load_checkpoint_file(checkpoint, map_location='cpu')
    state = content.get('state_dict', content)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise RuntimeError(
            f'{checkpoint} does not fit the model of {cfg.filename}. Expected a checkpoint of the '
            'whole pre-training model (not an exported encoder), trained with the same model '
            f'settings.\n{error}'
        ) from error
    return model.to(device).eval()


def main(argv: list[str] | None = None) -> list[Path]:
    """Draw and write the pictures.

    Returns:
        The files written, the sheet last.
    """
    args = parse_args(argv)
    cfg = read_config_file(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmmask3d'))
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise ValueError(f'{args.config} has no {args.split}_dataloader; choose another --split')
    model = load_model(cfg, args.checkpoint, args.device)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    dataset = DATASETS.build(loader.dataset)

    out_dir, files, panels = Path(args.out_dir), [], []
    for index in choose_indices(len(dataset), args.num, args.index):
        data = pseudo_collate([dataset[index]])
        with torch.no_grad():
            sample = model.test_step(data)[0]
        panel = panel_of_sample(
            data['inputs']['img'][0], sample, paste_kept=args.paste_kept, columns=args.columns
        )
        frame = re.sub(r'[^\w.-]+', '_', str(sample.get('frame', 'frame')))
        files.append(write_png(out_dir / f'{args.split}_{index:05d}_{frame}.png', panel))
        panels.append(panel)
        print(files[-1])
    files.append(write_png(out_dir / f'{args.split}_sheet.png', stack_panels(panels)))
    print(f'{len(panels)} frames drawn; all on one sheet: {files[-1]}')
    return files


if __name__ == '__main__':
    main()
