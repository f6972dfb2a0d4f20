"""SFKD as a preset: the connector and the losses that make a distillation the method."""
from __future__ import annotations


def sfkd(levels: int = 2, wavelet: str = 'haar', refine: bool | str = True, refine_spatial: bool = False,
         streams: bool = False, spatial_weight: float = 2.5, frequency_weight: float = 2.5, sigma: float = 0.5,
         logit_weight: float = 0.0, logit_loss: str = 'KLDivergence', temperature: float = 1.0,
         anchor: dict | None = None) -> dict:
    """Spatial-frequency joint-aware heterogeneous distillation (arXiv 2607.01906, read as in docs/method.md).

    Each pair goes through a :class:`WaveletConnector`. Its bands are matched in space (:class:`BandMSE`) as they are,
    and, refined by DS2S, its map in frequency (:class:`GaussianFrequencyLoss`); the logits by ``logit_loss``. A
    weight of 0 removes a term, and DS2S where no term is left that takes its bands, the anchor being none. Without DS2S
    (``refine=False``) it is the lean form, 'sfkd_lean' of the tools (docs/ablation.md compares the two).

    Args:
        levels, wavelet, refine, streams: see :class:`WaveletConnector`.
        refine_spatial: whether the spatial term takes the refined bands too, which costs accuracy
            (docs/short_budgets.md).
        spatial_weight: w_s of the band matching of each pair.
        frequency_weight: w_f of the GFFL of each pair.
        sigma: of the GFFL, relative to Nyquist.
        logit_weight: w_kd; 0 where teacher and student have different classes.
        logit_loss: type of a loss with a temperature: of segmentors and one-stage detectors, whose logits are class
            maps, 'ChannelWiseDivergence' too.
        temperature: of the logit distillation.
        anchor: ``dict(weight=1.0)`` or ``dict(share=0.1)``: the deepest map, refined where DS2S runs, judged by the
            rest of the teacher, see :class:`~sfkd.distillation.anchor.Anchor`; None for none.

    Returns:
        dict: ``connector``, ``losses``, ``logits`` and ``anchor`` of :class:`~sfkd.distillation.Distillation`.
    """
    refine = refine if frequency_weight or refine_spatial and spatial_weight else False  # or it would never learn
    return dict(
        connector=dict(type='WaveletConnector', levels=levels, wavelet=wavelet, refine=refine, streams=streams),
        losses=[dict(type='BandMSE', weight=spatial_weight, refined=refine_spatial, name='spatial'),
                dict(type='GaussianFrequencyLoss', weight=frequency_weight, sigma=sigma, name='frequency')],
        logits=[dict(type=logit_loss, weight=logit_weight, temperature=temperature, name='kd')],
        anchor=anchor)
