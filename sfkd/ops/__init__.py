"""Operations that carry no parameters: wavelet bands, what they tell each other and the convolutions that refine them,
the Gaussian-weighted spectrum, pooled and standardised maps, their mean square, activations from tables.
"""
from .activations import TabulatedActivations
from .convolutions import depthwise3x3, pointwise
from .dwt import Bands, dwt2, idwt2, max_levels
from .pooling import area_pool
from .spectral import gaussian_frequency_loss, gaussian_frequency_loss_fft, gaussian_transfer
from .squares import mean_square
from .standardisation import at_least_float32, moments, processes, standardise
from .streams import exchange

__all__ = [
    'Bands', 'TabulatedActivations', 'area_pool', 'at_least_float32', 'depthwise3x3', 'dwt2', 'exchange',
    'gaussian_frequency_loss', 'gaussian_frequency_loss_fft', 'gaussian_transfer', 'idwt2', 'max_levels', 'mean_square',
    'moments', 'pointwise', 'processes', 'standardise'
]
