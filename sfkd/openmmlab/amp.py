"""Mixed precision where there is no GPU."""
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """What mmengine's ``AmpOptimWrapper``, which refuses to be without a GPU, is there: forward passes under autocast,
    to bfloat16. Its range is float32's, so that no loss is scaled; arguments as of ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Mixed precision, and no gradient synchronisation while gradients accumulate."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
