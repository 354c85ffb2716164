"""Names of the classes that indoor RGB-D data sets are labelled with, and the maps between them.

Every label map of this project stores 0 for "unlabelled" and 1..C for the classes, in the order
of these tuples.
"""

#: The 13 classes of Couprie et al., "Indoor Semantic Segmentation using depth information"
#: (arXiv 1301.3572), in the order of the common label maps (1 = bed, ..., 13 = window).
NYU13_CLASSES = (
    'bed', 'books', 'ceiling', 'chair', 'floor', 'furniture', 'objects', 'picture', 'sofa',
    'table', 'tv', 'wall', 'window',
)  # fmt: skip

#: Those of NYU-13 and NYU-40 that are not countable: no instances of them are annotated.
INDOOR_STUFF = ('ceiling', 'floor', 'wall')

#: The 40 classes of Gupta et al., "Perceptual Organization and Recognition of Indoor Scenes from
#: RGB-D Images" (CVPR 2013), spelt as published.
NYU40_CLASSES = (
    'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf',
    'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror',
    'floor mat', 'clothes', 'ceiling', 'books', 'refridgerator', 'television', 'paper', 'towel',
    'shower curtain', 'box', 'whiteboard', 'person', 'night stand', 'toilet', 'sink', 'lamp',
    'bathtub', 'bag', 'otherstructure', 'otherfurniture', 'otherprop',
)  # fmt: skip

#: NYU-40 ids of the 20 classes of the ScanNet benchmark (Dai et al., CVPR 2017), in its order.
SCANNET20_NYU40_IDS = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39,
)  # fmt: skip

#: The 20 classes of the ScanNet benchmark, spelt as NYU-40 spells them.
SCANNET20_CLASSES = tuple(NYU40_CLASSES[i - 1] for i in SCANNET20_NYU40_IDS)

#: The 18 countable classes of the ScanNet benchmark: the 20 without wall and floor.
SCANNET18_CLASSES = SCANNET20_CLASSES[2:]

#: The 37 classes of SUN RGB-D (Song et al., CVPR 2015; ``seg37list.mat`` of its toolbox): the
#: first 37 of NYU-40, spelt as NYU-40 spells them. The toolbox writes floor_mat, fridge, tv,
#: shower_curtain and night_stand.
SUNRGBD37_CLASSES = NYU40_CLASSES[:37]
