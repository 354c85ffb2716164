"""Pack a frame into the tensors and the data sample the models take."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from mmmask3d.datasets.depth_io import zero_where_invalid
from mmmask3d.datasets.transforms.geometry import whole_view
from mmmask3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackRGBDInputs(BaseTransform):
    """Pack a frame as ``dict(inputs=..., data_samples=...)``.

    ``inputs``:

    - ``img``: (3, H, W) uint8, BGR.
    - ``depth``: (1, H, W) float32, metres or relative, 0 where there is no reading.
    - ``valid``: (1, H, W) bool.
    - ``view``: (4,) float32, what the image shows of its frame, see
      :data:`~mmmask3d.datasets.transforms.geometry.View`.
    - ``rgb_mask``, ``depth_mask``: (N,) bool, True = removed; left out where no masking transform
      came before.

    ``data_samples``: a :class:`mmpretrain.structures.DataSample` with the metadata.

    Args:
        meta_keys: Keys copied into the data sample's metadata where present.

    Raises:
        ValueError: ``img``, ``depth`` and ``valid`` differ in size: a transform in the pipeline
            moves colour alone.
    """

    META_KEYS = (
        'img_path',
        'depth_path',
        'frame',
        'depth_kind',
        'ori_shape',
        'img_shape',
        'grid',
        'sample_idx',
    )

    def __init__(self, meta_keys: Sequence[str] = META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack the frame."""
        img, depth, valid = results['img'], results['depth'], results['valid']
        if not img.shape[:2] == depth.shape == valid.shape:
            raise ValueError(
                f"PackRGBDInputs: frame '{results.get('frame')}': img {img.shape[:2]}, depth "
                f'{depth.shape} and valid {valid.shape} differ in size. Use the RGBD* '
                f'transforms; those of mmcv and mmpretrain move the colour image alone.'
            )
        if img.dtype != np.uint8:
            raise ValueError(
                f"PackRGBDInputs: frame '{results.get('frame')}': expected img as uint8 (it is "
                f'normalised on the device), found {img.dtype}.'
            )
        planes = np.empty((img.shape[2], *img.shape[:2]), np.uint8)
        cv2.split(img, list(planes))  # a quarter of the time of a transposed copy
        inputs = dict(
            img=torch.from_numpy(planes),
            depth=torch.from_numpy(zero_where_invalid(depth, valid)[None]),
            valid=torch.from_numpy(np.ascontiguousarray(valid)[None]),
            view=torch.tensor(results.get('view') or whole_view(results['ori_shape'])),
        )
        for key in ('rgb_mask', 'depth_mask'):
            if key in results:
                inputs[key] = torch.from_numpy(results[key])
        sample = DataSample()
        for key in self.meta_keys:  # one by one: `metainfo=` makes a deep copy
            if key in results:
                sample.set_field(results[key], key, field_type='metainfo')
        return dict(inputs=inputs, data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
