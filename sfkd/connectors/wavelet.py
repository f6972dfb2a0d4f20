"""The wavelet connector: align, decompose, refine."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Bands, depthwise3x3, dwt2, exchange, idwt2, pointwise
from ..ops.dwt import is_isometric, max_levels
from ..registry import MODELS
from .align import Align


class Decomposed:
    """An aligned map and its sub-bands.

    Args:
        map: (N, C, h, w).
        bands: its wavelet bands, or a function that gives them, called once and only if somebody asks for them.
        isometric: whether the bands are an orthonormal transform of the map, so that sums of squares over all bands are
            those over the map (Parseval) and such a loss needs no bands.
        refined: the same map as DS2S refined it; None where it was not, which is then itself.
    """

    def __init__(self, map: Tensor, bands: Bands | Callable[[], Bands], isometric: bool = False,
                 refined: Decomposed | None = None):
        self.map, self.isometric, self._bands = map, isometric, bands
        self._refined = refined  # not itself: in a cycle the maps would stay until Python looks for such

    @property
    def refined(self) -> Decomposed:
        return self._refined or self

    @property
    def bands(self) -> Bands:
        if callable(self._bands):
            self._bands = self._bands()
        return self._bands


def map_of(side: Tensor | Decomposed, refined: bool = False) -> Tensor:
    """The map that a connector gave, with bands or as it is; refined, where it was."""
    if not isinstance(side, Decomposed):
        return side
    return side.refined.map if refined else side.map


#: How much of what a branch of DS2S gives counts. Under Adam all weights move alike; so what DS2S does changes a tenth
#: as fast, and the student does not leave to it what it should learn itself.
PACE = 0.1


class Neighbours(nn.Conv2d):
    """A 3x3 convolution of each channel by itself.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (N, C, h, w).

        Returns:
            Tensor: of the same shape.
        """
        return depthwise3x3(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class BandResidual(nn.Module):
    """A band plus what a bottleneck makes of it: channels down, each by itself over its neighbours, GELU, channels up.
    Ours; zero at the start, so that the whole is the identity.

    The channels go down first: what runs over the neighbours, and what a gradient needs of it, is then a fraction of
    the band, and each band is read once and written once.

    Args:
        channels: C.
        hidden: of the bottleneck.
        bands: B that share the channels' weights, each with neighbours of its own.
    """

    def __init__(self, channels: int, hidden: int, bands: int = 1):
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1, bias=False)
        self.depthwise = Neighbours(bands * hidden)
        self.up = nn.Conv2d(hidden, channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (N, C, B, h, w).

        Returns:
            Tensor: of the same shape.
        """
        rows, (down, up) = x.flatten(2), (layer.weight.flatten(1).to(x.dtype) for layer in (self.down, self.up))
        hidden = pointwise(rows, down).unflatten(2, x.shape[2:])
        hidden = F.gelu(self.depthwise(hidden.flatten(1, 2))).view_as(hidden)
        return pointwise(hidden.flatten(2), up, to=rows, scale=PACE).view_as(x)


class DualStreamRefinement(nn.Module):
    """DS2S: refines the student's bands in two streams (low band, details) and two stages (within a band, between the
    streams).

    The name and the two directions are of arXiv 2607.01906; the layers are ours. Every branch ends in zeros, so that it
    starts as the identity. Weights are shared over levels, those of channels over the three detail bands too, and go
    through at most 16 channels: what is refined is one map's bands, and the whole must stay small beside the student
    (84 C weights and 640 at most). It computes in the bands' dtype, float32 as connectors have them, under autocast and
    with weights in half precision too: next to nothing of a step.

    Args:
        channels: C of the bands.
        only: one stage ('within' a band, 'between' the streams) or one stream ('low', 'detail'), for ablations; None
            for all.
        details: whether there are any; without, only the low stream's first stage is left.

    Raises:
        ValueError: if ``only`` is none of these.
    """

    PARTS = (None, 'within', 'between', 'low', 'detail')

    def __init__(self, channels: int, only: str | None = None, details: bool = True):
        super().__init__()
        if only not in self.PARTS:
            raise ValueError(f'DS2S has the parts {", ".join(map(repr, self.PARTS[1:]))}, not {only!r}')
        hidden = min(max(channels // 16, 4), 16)
        self.low = BandResidual(channels, hidden) if only not in ('between', 'detail') else None
        self.detail = BandResidual(channels, hidden, bands=3) if details and only not in ('between', 'low') else None
        self.low_to_detail = self._gate(channels) if details and only not in ('within', 'low') else None
        self.detail_to_low = self._gate(channels) if details and only not in ('within', 'detail') else None

    @staticmethod
    def _gate(channels: int) -> Neighbours:
        layer = Neighbours(channels)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer

    def forward(self, bands: Bands) -> Bands:
        """
        Args:
            bands: low (N, C, h, w), details (N, C, 3, h_j, w_j).

        Returns:
            Bands: of the same shapes.
        """
        low, details = bands
        with torch.autocast(low.device.type, enabled=False):
            if self.low is not None:
                low = self.low(low.unsqueeze(2)).squeeze(2)
            if self.detail is not None:
                details = tuple(map(self.detail, details))
            if self.low_to_detail is None and self.detail_to_low is None:
                return Bands(low, details)
            # Between the streams, each way from the other's first stage
            details, energy = exchange(details, torch.ones_like(low) if self.low_to_detail is None
                                       else 1 + torch.tanh(PACE * self.low_to_detail(low)))
            if self.detail_to_low is not None:
                low = low * (1 + torch.tanh(PACE * self.detail_to_low(energy.add(1e-6).log())))
            return Bands(low, details)


class StreamProjection(nn.Module):
    """A 1x1 projection for each stream of a map's bands, one for the low band and one for the details: what two
    networks say at low and at high frequencies need not lie in the same channels. Linear; with the same weights twice
    it is one convolution. Ours.

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        levels, wavelet: see :class:`WaveletConnector`.
    """

    def __init__(self, student_channels: int, teacher_channels: int, levels: int, wavelet: str):
        super().__init__()
        self.low, self.detail = (nn.Conv2d(student_channels, teacher_channels, 1, bias=False) for _ in range(2))
        self.levels, self.wavelet = levels, wavelet

    def forward(self, x: Tensor) -> Tensor:
        """
        Args:
            x: (N, Cs, h, w).

        Returns:
            Tensor: (N, Ct, h, w).
        """
        grid = x.shape[2:]
        low, details = dwt2(x, min(self.levels, max_levels(grid, self.wavelet)), self.wavelet)
        # the three bands as rows of one map
        details = tuple(self.detail(d.flatten(2, 3)).unflatten(2, (3, -1)) for d in details)
        return idwt2(Bands(self.low(low), details), self.wavelet, size=grid)


@MODELS.register_module()
class WaveletConnector(nn.Module):
    """Align, decompose by a multi-level DWT, refine the student's bands by DS2S (arXiv 2607.01906, read as in
    docs/method.md).

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        levels: J; falls to what a smaller grid allows. 0, for ablations: no transform, the map is its own low band and
            there are no details.
        wavelet: any discrete wavelet that PyWavelets names; orthogonal ones keep energy, so that losses of squares need
            no bands.
        refine: whether DS2S runs, or which part of it alone (``only`` of :class:`DualStreamRefinement`).
        standardised: see :class:`Align`.
        streams: whether low band and details are projected apart (:class:`StreamProjection`).

    Raises:
        ValueError: for levels below 0, or an unknown wavelet, or without levels for what works on details.
    """

    def __init__(self, student_channels: int, teacher_channels: int, levels: int = 2, wavelet: str = 'haar',
                 refine: bool | str = False, standardised: bool = True, streams: bool = False):
        super().__init__()
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 0:
            raise ValueError(f'levels must be a whole number from 0, not {levels!r}')
        if not levels and (streams or isinstance(refine, str)):
            raise ValueError('levels=0 leaves no details: refine must be True or False and streams False, not '
                             f'{refine=} and {streams=}')
        is_isometric(wavelet)  # raises for an unknown one
        project = StreamProjection(student_channels, teacher_channels, levels, wavelet) if streams else None
        self.align = Align(student_channels, teacher_channels, standardised, project)
        self.levels, self.wavelet = levels, wavelet
        self.refine = (DualStreamRefinement(teacher_channels, None if refine is True else refine, details=levels > 0)
                       if refine else None)

    def levels_on(self, grid: tuple[int, int]) -> int:
        """How many of the wanted levels a grid (h, w) allows."""
        return min(self.levels, max_levels(grid, self.wavelet))

    def takes(self, grid: tuple[int, int]) -> bool:
        """Whether a grid (h, w) allows any of the wanted levels."""
        return not self.levels or self.levels_on(grid) > 0

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> tuple[Decomposed, Decomposed]:
        """
        Args:
            student: (N, Cs, hs, ws).
            teacher: (N, Ct, ht, wt).
            mask: see :class:`Align`.

        Returns:
            tuple: both decomposed on the common grid with Ct channels. The student's ``refined.map`` is rebuilt from
                its refined bands.

        Raises:
            ValueError: if levels are wanted and the common grid allows none.
        """
        student, teacher = self.align(student, teacher, mask)
        grid, isometric = student.shape[2:], is_isometric(self.wavelet)
        if not self.takes(grid):
            raise ValueError(f'a grid of {grid[0]}x{grid[1]} is too small for any level of {self.wavelet!r}')
        levels = self.levels_on(grid)
        teacher = Decomposed(teacher, partial(dwt2, teacher, levels, self.wavelet), isometric)
        if self.refine is None:
            return Decomposed(student, partial(dwt2, student, levels, self.wavelet), isometric), teacher
        bands = dwt2(student, levels, self.wavelet)
        return Decomposed(student, bands, isometric, self._refined(bands, grid, mask)), teacher

    def _refined(self, bands: Bands, grid: tuple[int, int], mask: Tensor | None) -> Decomposed:
        bands = self.refine(bands)
        refined = idwt2(bands, self.wavelet, size=grid)
        if mask is None:
            return Decomposed(refined, bands)
        refined = refined * mask  # what the refinement spread into the padding is nobody's
        return Decomposed(refined, partial(dwt2, refined, len(bands.details), self.wavelet))
