"""Puts configs, tools and the model index into the distribution, as OpenMMLab packages do.

mim and mmengine's ``_base_ = 'mmmask3d::...'`` look for them in ``mmmask3d/.mim``. A wheel gets
copies; an editable install gets links, so that an edited config is never read from an old copy.
Named as ``build_py`` under ``[tool.setuptools.cmdclass]`` in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

PACKAGE = 'mmmask3d'
ASSETS = ('configs', 'tools', 'model-index.yml')


class BuildPy(build_py):
    """``build_py`` that also fills ``mmmask3d/.mim``."""

    def run(self) -> None:
        """Build the package, then copy or link the assets next to it."""
        super().run()
        root = Path.cwd()  # build back ends are called in the project's root
        missing = [name for name in ASSETS if not (root / name).exists()]
        if missing:
            raise FileNotFoundError(
                f'{", ".join(missing)} not found in {root}: the distribution must hold '
                f'{", ".join(ASSETS)}. Build from a complete checkout or sdist.'
            )
        base = root if self.editable_mode else Path(self.build_lib)
        mim = base / PACKAGE / '.mim'
        # What an earlier build left would be shipped although its source is gone.
        if mim.exists():
            shutil.rmtree(mim)
        mim.mkdir(parents=True)
        for name in ASSETS:
            if self.editable_mode:
                (mim / name).symlink_to(Path('..', '..', name))
            elif (root / name).is_dir():
                shutil.copytree(
                    root / name, mim / name, ignore=shutil.ignore_patterns('__pycache__', '*.pyc')
                )
            else:
                shutil.copy2(root / name, mim / name)
