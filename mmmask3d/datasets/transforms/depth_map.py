"""Load a frame's depth as what a monocular depth estimator is trained on and scored with."""

from mmcv.transforms import BaseTransform

from mmmask3d.datasets.depth_io import FrameError, decode_depth, to_readings
from mmmask3d.datasets.transforms.loading import read_file
from mmmask3d.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadDepthMap(BaseTransform):
    """Load depth as mmseg's ``gt_depth_map``, metres with 0 for "no reading".

    In mmseg's pipelines, place it before the geometric transforms in training (they move the maps
    named in ``seg_fields`` along, picking the nearest value) and after them in testing, where a
    prediction is brought back to the frame's own size.

    Required keys: ``depth_path`` and the depth settings that
    :class:`~mmmask3d.datasets.RGBDDataset` writes. Added keys: ``gt_depth_map``, (H, W) float32;
    its name in ``seg_fields``.

    Args:
        backend_args: File backend, see :func:`mmengine.fileio.get`.

    Raises:
        FileNotFoundError: The file is missing.
        FrameError: It cannot be read, its size differs from the image's, or it holds relative
            depth, which has no metres.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = None if backend_args is None else dict(backend_args)

    def transform(self, results: dict) -> dict:
        """Load the map."""
        path = results['depth_path']
        if results['depth_kind'] != 'metric':
            raise FrameError(
                f"frame '{results['frame']}': {path} holds {results['depth_kind']} depth; depth "
                f'estimation is trained and scored in metres. Use data with metric depth.'
            )
        content = read_file(path, results, self.backend_args)
        depth, _ = to_readings(
            decode_depth(content, path),
            results['depth_scale'],
            results['depth_invalid'],
            results['min_depth'],
            results['max_depth'],
        )
        size = tuple(results.get('ori_shape', depth.shape)[:2])
        if depth.shape != size:
            raise FrameError(
                f"frame '{results['frame']}': depth of {depth.shape[0]}x{depth.shape[1]} for an "
                f'image of {size[0]}x{size[1]} (height x width): {path}. Register depth to colour '
                f'and resize it (nearest) first.'
            )
        results['gt_depth_map'] = depth
        results.setdefault('seg_fields', []).append('gt_depth_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'
