"""The class tables of NYU Depth v2: its 894 raw names, the 40 and the 13 classes, categories.

The labelled ``.mat`` holds raw names only. The maps come from where their authors published them:

- 894 to 40: Gupta, Arbelaez, Malik, "Perceptual Organization and Recognition of Indoor Scenes from
  RGB-D Images", CVPR 2013: ``classMapping40.mat`` (``mapClass``, ``allClassName``) of the code
  release.
- 40 to 13: Couprie, Farabet, Najman, LeCun, "Indoor Semantic Segmentation using depth
  information" (arXiv 1301.3572), as ``class13Mapping.mat`` of Handa et al. (SceneNet, CVPR 2016).

docs/datasets/nyuv2.md says how both were checked.
"""

from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from mmmask3d.datasets.classes import INDOOR_STUFF, NYU13_CLASSES, NYU40_CLASSES

#: Number of raw names in the labelled ``.mat``.
NUM_RAW_CLASSES = 894


def normal_name(name: str) -> str:
    """Raw name with single blanks; one of the 894 is stored with two."""
    return ' '.join(name.split())


def _raw_classes() -> dict[str, int]:
    table = files('mmmask3d.conversion.sources') / 'nyuv2_raw_classes.tsv'
    rows = (line.split('\t') for line in table.read_text(encoding='utf-8').splitlines()[1:])
    return {name: int(number) for name, number in rows}


#: NYU-40 id (1..40) of each raw name.
RAW_TO_NYU40: Mapping[str, int] = _raw_classes()

#: NYU-13 id of each NYU-40 id, 0 (unlabelled) included.
NYU40_TO_NYU13 = np.array(
    [
        0,
        12, 5, 6, 1, 4, 9, 10, 12, 13, 6,
        8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
        7, 3, 2, 6, 11, 7, 7, 7, 7, 7,
        7, 6, 7, 7, 7, 7, 7, 7, 6, 7,
    ],
    np.uint8,
)  # fmt: skip

_GUPTA19 = (
    'bathtub', 'bed', 'bookshelf', 'box', 'chair', 'counter', 'desk', 'door', 'dresser',
    'garbage bin', 'lamp', 'monitor', 'night stand', 'pillow', 'sink', 'sofa', 'table',
    'television', 'toilet',
)  # fmt: skip
_PRI3D9 = ('bed', 'books', 'chair', 'furniture', 'picture', 'sofa', 'table', 'tv', 'window')

#: Names of the choices of COCO categories.
CATEGORY_SETS = ('nyu40', 'gupta19', 'nyu13')


def instance_categories(which: str) -> dict[int, str]:
    """COCO categories of a choice, by id.

    - ``nyu40``: the 40 classes without wall, floor and ceiling, which enclose the room and are
      not counted (EMSANet, Seichter et al., IJCNN 2022, draws the same line); ids of NYU-40.
    - ``gupta19``: the 19 object classes of Gupta et al., "Learning Rich Features from RGB-D
      Images for Object Detection and Segmentation", ECCV 2014; ids 1..19 in alphabetical order.
    - ``nyu13``: the nine of Pri3D (Hou et al., ICCV 2021), which Mask3D compares with: 13 classes
      without ceiling, floor, objects and wall; ids of NYU-13.
    """
    if which == 'gupta19':
        return dict(enumerate(_GUPTA19, 1))
    classes = NYU13_CLASSES if which == 'nyu13' else NYU40_CLASSES
    wanted = _PRI3D9 if which == 'nyu13' else [c for c in classes if c not in INDOOR_STUFF]
    return {i: name for i, name in enumerate(classes, 1) if name in wanted}


def category_of_raw(raw_name: str, which: str) -> int:
    """COCO category id of a raw name, by one of :data:`CATEGORY_SETS`; 0 for none."""
    name = normal_name(raw_name)
    if which == 'gupta19':
        return _GUPTA19.index(name) + 1 if name in _GUPTA19 else 0
    nyu40 = RAW_TO_NYU40[name]
    category = int(NYU40_TO_NYU13[nyu40]) if which == 'nyu13' else nyu40
    return category if category in instance_categories(which) else 0
