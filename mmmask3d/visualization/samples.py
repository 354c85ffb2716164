"""From a predicted sample to its picture, for the hook and the tool alike."""

from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from torch import Tensor

from mmmask3d.evaluation.masked_depth_metric import comparable_depth
from mmmask3d.visualization.panels import reconstruction_panel


def panel_of_sample(
    image: Tensor, sample: BaseDataElement, bgr: bool = True, **kwargs: Any
) -> np.ndarray:
    """Draw a frame that ``MaskedRGBD.predict`` was run on.

    The prediction is brought into the unit of the truth exactly as
    :class:`~mmmask3d.evaluation.MaskedDepthMetric` does it, so picture and figures agree.

    Args:
        image: The frame as the pipeline packed it, uint8 (3, H, W), not normalised.
        sample: The predicted sample.
        bgr: Whether the channels of ``image`` are BGR, as mmcv loads them.
        **kwargs: Options of :func:`~mmmask3d.visualization.panels.reconstruction_panel`.

    Returns:
        RGB uint8 (H', W', 3).
    """
    fields = sample.to_dict()
    rgb = image.permute(1, 2, 0).cpu().numpy()
    if rgb.dtype != np.uint8:
        raise ValueError(
            f'the image of {fields.get("frame", "a frame")} is {rgb.dtype}, expected the uint8 '
            'image of PackRGBDInputs, before the preprocessor'
        )
    rgb = np.ascontiguousarray(rgb[..., ::-1]) if bgr else rgb
    arguments: dict[str, Any] = {
        'patch_size': rgb.shape[0] // fields['grid'][0],
        'rgb_mask': _numpy(fields.get('rgb_mask')),
        'caption': str(fields.get('frame', '')),
        'unit': 'relative' if fields.get('depth_kind') == 'relative' else 'm',
    }
    if 'pred_rgb' in fields:
        arguments['pred_rgb'] = _numpy(fields['pred_rgb']).transpose(1, 2, 0)
    # Without a depth head (MAE) the depth map is not part of the task and is not drawn.
    has_head = 'pred_target' in fields or 'pred_depth' in fields
    if has_head and not fields['valid'].any():  # nothing to compare the prediction with
        name = 'pred_depth' if 'pred_depth' in fields else 'pred_target'
        arguments['pred_depth'] = _numpy(fields[name])
        if name == 'pred_target':
            arguments['unit'] = 'standardised'
    elif has_head:
        found = comparable_depth(fields)
        arguments.update(
            depth=_numpy(fields['depth']),
            valid=_numpy(fields['valid']).astype(bool),
            depth_mask=_numpy(fields['depth_mask']),
            pred_depth=_numpy(found.prediction),
            aligned=found.aligned,
        )
    return reconstruction_panel(rgb, **{**arguments, **kwargs})


def _numpy(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().cpu().numpy()
