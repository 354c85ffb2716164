"""Masks in runs that mmengine's runner builds from a config, whoever read that config."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmmask3d.datasets.masking_config import hand_masking_to, masking_defaults, resolve_masking
from mmmask3d.registry import HOOKS


@HOOKS.register_module()
class MaskingHook(Hook):
    """Give the config's ``masking`` and the encoder's patch size to the data sets of the run.

    The tools do this when they read a config. This hook does it for ``Runner.from_cfg`` and the
    train.py of other packages, before any worker starts, and knows the patch size of the encoder
    that is built, also where the config does not say it.

    Raises:
        ValueError: Before the run: ``masking`` is wrong, or a pipeline contradicts the encoder.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Check the whole config, so that a mistake in the test data shows before the training."""
        resolve_masking(runner.cfg)

    def before_train(self, runner: Runner) -> None:
        """Reach the training data."""
        self._hand_over(runner, runner.train_dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        """Reach the validation data."""
        self._hand_over(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Reach the test data."""
        self._hand_over(runner, runner.test_dataloader.dataset)

    def _hand_over(self, runner: Runner, dataset: object) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        hand_masking_to(dataset, masking_defaults(runner.cfg, model))
