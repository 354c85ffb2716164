"""The option that names a unit, and which converters have it."""

import argparse

import pytest

from mmmask3d.conversion.options import stored_per_metre
from mmmask3d.conversion.sources.cityscapes import CityscapesConverter
from mmmask3d.conversion.sources.folder import FolderConverter
from mmmask3d.conversion.sources.nyuv2 import NYUv2Converter
from mmmask3d.conversion.sources.predicted_depth import PredictedDepthConverter
from mmmask3d.conversion.sources.scannet import ScanNetConverter
from mmmask3d.conversion.sources.seven_scenes import SevenScenesConverter
from mmmask3d.conversion.sources.sunrgbd import SUNRGBDConverter
from mmmask3d.conversion.sources.tum import TUMConverter


@pytest.mark.parametrize(
    ('text', 'scale'), [('mm', 1000), (' cm ', 100), ('m', 1), ('5000', 5000), ('0.5', 0.5)]
)
def test_units(text, scale):
    assert stored_per_metre(text) == scale


@pytest.mark.parametrize('text', ['inch', '', '0', '0.0', '-5', 'nan', 'inf', '1e3', 'relative'])
def test_what_is_no_unit(text):
    with pytest.raises(argparse.ArgumentTypeError, match='expected mm, cm, m, or a number'):
        stored_per_metre(text)


@pytest.mark.parametrize(
    ('converter', 'default'),
    [
        (TUMConverter, 5000),
        (SevenScenesConverter, 1000),
        (ScanNetConverter, 1000),
        (FolderConverter, None),  # asks
        # The unit is part of the file: metres in MATLAB's floats, rotated bits, a calibration.
        (NYUv2Converter, 'none'),
        (SUNRGBDConverter, 'none'),
        (CityscapesConverter, 'none'),
        (PredictedDepthConverter, 'none'),
    ],
)
def test_layouts_that_do_not_prove_their_unit_have_it(converter, default):
    parser = argparse.ArgumentParser()
    converter.add_arguments(parser.add_argument_group('data set'))
    assert parser.get_default('unit') == (None if default == 'none' else default)
    assert ('--unit' in parser.format_help()) == (default != 'none')
