# Aligned MSE on backbone stages: standardised maps, no wavelets, no frequencies; what SFKD has to beat. No paper's: a plain baseline.
# The weight is that of SFKD's spatial term (sfkd/distillation/method.py), which with BandMSE, balanced and unrefined, is this very loss.
model = dict(
    type='Distiller', pairs='auto', connector=dict(type='Align'),
    losses=[dict(type='FeatureMSE', name='mse', weight=2.5)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
