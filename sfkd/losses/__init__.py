from .base import DistillationLoss, is_mean_over_grid, takes_mask
from .feature import ChannelWiseDivergence, CosineDistance, DetailL1, FeatureMSE
from .frequency import GaussianFrequencyLoss
from .logits import DIST, DKD, KLDivergence, OFALoss
from .relation import CorrelationCongruence, PooledMSE, RedundancySuppression, RelationalKD
from .wavelet import BandInfoNCE, BandMSE

__all__ = ['BandInfoNCE', 'BandMSE', 'ChannelWiseDivergence', 'CorrelationCongruence', 'CosineDistance', 'DIST', 'DKD',
           'DetailL1', 'DistillationLoss', 'FeatureMSE', 'GaussianFrequencyLoss', 'KLDivergence', 'OFALoss',
           'PooledMSE', 'RedundancySuppression', 'RelationalKD', 'is_mean_over_grid', 'takes_mask']
