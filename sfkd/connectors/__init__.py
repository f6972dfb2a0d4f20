from .align import Align, CommonGrid, ConvTransfer
from .embedding import EmbeddingProjector
from .generation import MaskedGeneration
from .logit_space import LogitProjector
from .wavelet import Decomposed, DualStreamRefinement, WaveletConnector

__all__ = ['Align', 'CommonGrid', 'ConvTransfer', 'Decomposed', 'DualStreamRefinement', 'EmbeddingProjector',
           'LogitProjector', 'MaskedGeneration', 'WaveletConnector']
