"""A count of training steps that survives a checkpoint."""
import torch
from torch import nn


class StepCount(nn.Module):
    """Counts steps; a resumed run goes on counting where the other was. The value is known without waiting for the
    device.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer('done', torch.tensor(0))
        self._done: int | None = None

    def next(self) -> int:
        """The number of this step, from 0; counts it."""
        if self._done is None:
            self._done = int(self.done)
        self._done += 1
        self.done.fill_(self._done)
        return self._done - 1

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self._done = None
