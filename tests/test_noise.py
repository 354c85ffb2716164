"""Messages that nobody can act on are silent, exactly these, in every process."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What the packages say depends on how mmcv was built: the messages are also made by hand.
NOISE = """
from mmengine.logging import MMLogger, print_log
print_log('Could not import OneDL', level=10)
print_log('Could not import OneDL. Skipping OneDL datasets.', level=10)
MMLogger.get_instance('run').warning(
    'Line NMS is not compiled. Most likely when installing the package cuda was not available.\\n')
import warnings
for text in ('Fail to import ``MultiScaleDeformableAttention`` from ``mmcv.ops``',
             '``MultiScaleDeformableAttention`` has been moved to ``mmcv.ops``'):
    warnings.warn_explicit(text, UserWarning, 'transformer.py', 33, 'mmcv.cnn.bricks.transformer')
"""
OTHERS = """
print_log('Could not import OneDL after all')
print_log(['Could not import OneDL'], level=10)
MMLogger.get_instance('run').warning('NMS is not compiled')
print('Could not import OneDL')
module = 'mmcv.cnn.bricks.transformer'
warnings.warn_explicit('Fail to import ``X``', UserWarning, 'a.py', 1, module)
warnings.warn_explicit('``MultiScaleDeformableAttention`` is slow', UserWarning, 'b.py', 1, 'mine')
"""
LINES = (
    'Could not import OneDL after all',
    "['Could not import OneDL']",
    'NMS is not compiled',
    'Could not import OneDL',
    'a.py:1: UserWarning: Fail to import ``X``',
    'b.py:1: UserWarning: ``MultiScaleDeformableAttention`` is slow',
)


def run(*arguments):
    """Everything that a Python program writes."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_noise_is_there_without_us():
    said = run('-c', NOISE)
    assert said.count('Could not import OneDL') == 2
    assert 'Line NMS is not compiled' in said
    assert said.count('MultiScaleDeformableAttention') == 2


def test_it_is_silent_and_other_messages_are_not():
    imports = 'import mmmask3d.registry, mmpretrain.models, mmseg.models, mmdet.models\n'
    said = run('-c', imports + NOISE + OTHERS).splitlines()
    assert len(said) == len(LINES)
    for line in LINES:
        assert any(found.endswith(line) for found in said), (line, said)


def test_workers_are_silent_as_well(make_rgbd_folder, tmp_path):
    """A spawned worker imports the packages itself, when it unpickles the data set."""
    root = make_rgbd_folder(tmp_path / 'set', 2)
    script = tmp_path / 'load.py'
    script.write_text(f"""
if __name__ == '__main__':
    from torch.utils.data import DataLoader
    from mmmask3d.datasets import RGBDDataset
    from mmmask3d.datasets.transforms import LoadRGBD
    data = RGBDDataset(data_root={str(root)!r}, img_suffix='.png', pipeline=[LoadRGBD()])
    loader = DataLoader(
        data, 1, num_workers=1, collate_fn=len, multiprocessing_context='spawn')
    print(sum(loader))
""")
    assert run(script) == '2\n'
