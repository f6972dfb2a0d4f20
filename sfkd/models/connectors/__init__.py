from .align import Align
from .wavelet import Decomposed, DualStreamRefinement, WaveletConnector

__all__ = ['Align', 'Decomposed', 'DualStreamRefinement', 'WaveletConnector']
