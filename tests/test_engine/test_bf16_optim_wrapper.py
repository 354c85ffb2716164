"""bfloat16 on a CPU: what is computed in it, and what is not."""

import torch
from mmengine.model import BaseModel
from torch import nn

from mmmask3d.registry import OPTIM_WRAPPERS


class Model(BaseModel):
    """A linear layer that notes the type of what it makes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 4)

    def forward(self, inputs, data_samples=None, mode='loss'):
        out = self.layer(inputs)
        self.made = out.dtype
        return dict(loss=out.float().square().mean())


def test_forward_in_bfloat16_and_weights_in_float32():
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    results = []
    for kind in ('OptimWrapper', 'Bfloat16OptimWrapper'):
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        wrapper = OPTIM_WRAPPERS.build(dict(type=kind, optimizer=optimizer))
        model.train_step(dict(inputs=x), wrapper)
        assert model.made == (torch.float32 if kind == 'OptimWrapper' else torch.bfloat16)
        assert model.layer.weight.dtype == torch.float32
        results.append(model.layer.weight.detach() - Model().layer.weight.detach())
    step, step_bf16 = results
    assert not torch.equal(step, step_bf16)
    torch.testing.assert_close(step, step_bf16, rtol=0.05, atol=1e-2 * float(step.abs().max()))
