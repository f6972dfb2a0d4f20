from .align import Align, CommonGrid
from .embedding import EmbeddingProjector
from .logit_space import LogitProjector
from .wavelet import Decomposed, DualStreamRefinement, WaveletConnector

__all__ = ['Align', 'CommonGrid', 'Decomposed', 'DualStreamRefinement', 'EmbeddingProjector', 'LogitProjector',
           'WaveletConnector']
