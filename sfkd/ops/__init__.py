"""Signal operations that carry no parameters: wavelet bands, the Gaussian-weighted spectrum, standardised maps."""
from .dwt import Bands, dwt2, idwt2, max_levels
from .spectral import gaussian_frequency_loss, gaussian_frequency_loss_fft, gaussian_transfer
from .standardisation import at_least_float32, standardise

__all__ = [
    'Bands', 'at_least_float32', 'dwt2', 'gaussian_frequency_loss', 'gaussian_frequency_loss_fft',
    'gaussian_transfer', 'idwt2', 'max_levels', 'standardise'
]
