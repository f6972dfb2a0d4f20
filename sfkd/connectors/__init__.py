from .align import Align, CommonGrid
from .conv_module import ConvModuleConnector
from .embedding import EmbeddingProjector
from .generation import MaskedGeneration
from .logit_space import LogitProjector
from .wavelet import Decomposed, DualStreamRefinement, WaveletConnector, map_of

__all__ = ['Align', 'CommonGrid', 'ConvModuleConnector', 'Decomposed', 'DualStreamRefinement', 'EmbeddingProjector',
           'LogitProjector', 'MaskedGeneration', 'WaveletConnector', 'map_of']
