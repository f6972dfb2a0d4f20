"""Signal operations that carry no parameters: wavelet bands and the Gaussian-weighted spectrum."""
from .dwt import MODES, Bands, dwt2, idwt2, max_levels
from .spectral import gaussian_frequency_loss, gaussian_frequency_loss_fft, gaussian_transfer

__all__ = [
    'MODES', 'Bands', 'dwt2', 'gaussian_frequency_loss', 'gaussian_frequency_loss_fft', 'gaussian_transfer', 'idwt2',
    'max_levels'
]
