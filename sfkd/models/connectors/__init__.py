from .align import Align
from .logit_space import LogitProjector
from .wavelet import Decomposed, DualStreamRefinement, WaveletConnector

__all__ = ['Align', 'Decomposed', 'DualStreamRefinement', 'LogitProjector', 'WaveletConnector']
