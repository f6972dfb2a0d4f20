"""SFKD as a preset: the connector and the losses that make a distillation the method."""
from __future__ import annotations


def sfkd(levels: int = 2, wavelet: str = 'haar', refine: bool | str = False, streams: bool = False,
         spatial_weight: float = 2.5, frequency_weight: float = 2.5, sigma: float = 0.5, logit_weight: float = 0.0,
         temperature: float = 1.0) -> dict:
    """Spatial-frequency joint-aware heterogeneous distillation (arXiv 2607.01906, read as in docs/method.md).

    Each pair goes through a :class:`WaveletConnector`; its bands are matched in space (:class:`BandMSE`), its map in
    frequency (:class:`GaussianFrequencyLoss`), both refined by DS2S where ``refine`` is set; the logits by
    :class:`KLDivergence`. A weight of 0 removes a term. DS2S is off by default: it costs accuracy in short trainings
    and gains none in longer ones (docs/ablation.md).

    Args:
        levels, wavelet, refine, streams: see :class:`WaveletConnector`.
        spatial_weight: w_s of the band matching of each pair.
        frequency_weight: w_f of the GFFL of each pair.
        sigma: of the GFFL, relative to Nyquist.
        logit_weight: w_kd; 0 where teacher and student have different classes.
        temperature: of the logit distillation.

    Returns:
        dict: ``connector``, ``losses`` and ``logits`` of :class:`~sfkd.distillation.Distillation`.
    """
    return dict(
        connector=dict(type='WaveletConnector', levels=levels, wavelet=wavelet, refine=refine, streams=streams),
        losses=[dict(type='BandMSE', weight=spatial_weight, name='spatial'),
                dict(type='GaussianFrequencyLoss', weight=frequency_weight, sigma=sigma, name='frequency')],
        logits=[dict(type='KLDivergence', weight=logit_weight, temperature=temperature, name='kd')])
