from .align import Align, CommonGrid
from .logit_space import LogitProjector
from .wavelet import Decomposed, DualStreamRefinement, WaveletConnector

__all__ = ['Align', 'CommonGrid', 'Decomposed', 'DualStreamRefinement', 'LogitProjector', 'WaveletConnector']
