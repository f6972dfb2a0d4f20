from .frequency import GaussianFrequencyLoss
from .logits import KLDivergence
from .wavelet import BandInfoNCE, BandMSE

__all__ = ['BandInfoNCE', 'BandMSE', 'GaussianFrequencyLoss', 'KLDivergence']
