"""Writes the config with the encoder in place of its backbone, after the model has run."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmmask3d.checkpoints.download import DownloadError
from mmmask3d.checkpoints.files import CheckpointError
from mmmask3d.engine.run_config import check_libraries, load_config
from mmmask3d.swap.backbone import SwapError
from mmmask3d.swap.config import base_of, read_config, render_config
from mmmask3d.swap.plan import Swap, SwapOptions, plan_swap, refine_swap
from mmmask3d.swap.proof import (
    Proof,
    check_optimiser,
    is_trained,
    prove_swap,
)


@dataclass(frozen=True)
class Swapped:
    """What was written.

    Attributes:
        plan: The changes.
        proof: What was seen when the model ran; None where it was not run.
        trained: Whether the config trains anything.
    """

    plan: Swap
    proof: Proof | None
    trained: bool


def rewrite(
    config: str,
    out: str,
    options: SwapOptions,
    size: Sequence[int] = (384, 512),
    skip_run: bool = False,
    skip_predict: bool = False,
) -> Swapped:
    """Plan, prove and write; nothing is written unless all of it succeeds.

    Args:
        config: Config file, or ``package::folder/config.py``.
        out: Config to write; must not exist.
        options: The encoder and what goes with it.
        size: Height and width of the random image.
        skip_run: Write the config without running the model.
        skip_predict: Try the training step alone.

    Raises:
        SwapError: The backbone cannot be swapped, or the swapped model does not run.
    """
    target = Path(out).expanduser()
    if target.exists():
        raise SwapError(f'{target} exists; name another file, or remove it.')
    if not target.parent.is_dir():
        raise SwapError(f'{target.parent}: no such folder.')
    cfg = read_config(config)
    check_libraries(cfg)
    plan = plan_swap(cfg, options)
    # In the folder of the result, where its relative path to the user's config holds.
    draft = target.with_name(f'{target.stem}_draft_{os.getpid()}.py')
    base, proof = base_of(config, target), None
    try:
        draft.write_text(render_config(plan, base, options.checkpoint), encoding='utf-8')
        if not skip_run:
            proof = run(load_config(draft), plan, options.path, size, not skip_predict)
        refine_swap(plan, cfg, proof, options.backbone_only)
        draft.write_text(render_config(plan, base, options.checkpoint), encoding='utf-8')
        final = load_config(draft)  # what is written can be read
        if (
            proof
            and proof.model is not None
            and any(change.key == 'optim_wrapper' for change in plan.changes)
        ):
            check_optimiser(final, proof.model)
        target.touch(exist_ok=False)  # fails if somebody has written it meanwhile
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return Swapped(plan, proof, is_trained(cfg))


def run(new: Config, plan: Swap, path: str, size: Sequence[int], predict: bool) -> Proof:
    """Run the swapped model, with random weights where its own are not at hand."""
    try:
        try:
            return prove_swap(new, plan.old_backbone, path, size, predict=predict)
        except DownloadError as error:
            plan.notes.append(
                f'the weights are not at hand, so the model was run with random ones: {error}'
            )
            alone = _without_weights(new, path)
            return prove_swap(alone, plan.old_backbone, path, size, predict=predict)
    except (SwapError, CheckpointError):  # says what is wrong
        raise
    except Exception as error:  # of any kind: the models are not ours
        raise SwapError(
            f'the swapped model does not run: {type(error).__name__}: {error}\nEither it needs '
            f'more of {plan.old_backbone["type"]} than the maps of its stages, and cannot be '
            'swapped; or the original config does not run on random images of this size either: '
            'try another --size, or write the config with --skip-run and start a training to see.'
        ) from error


def _without_weights(cfg: Config, path: str) -> Config:
    """A copy whose encoder of timm starts at random."""
    cfg = copy.deepcopy(cfg)
    backbone = cfg
    for key in path.split('.'):
        backbone = backbone[key]
    backbone.encoder.pop('pretrained')
    return cfg
