# PKD (Cao et al., arXiv 2207.02039, section 3.2) on backbone stages: 1 - r is half the MSE of standardised maps, so 0.5 x the weight.
# Weight 6 is that of mmrazor's PKD config for Swin-S to ResNet-50 (others there have 10).
# Departures:
# - every pair of backbone stages instead of four FPN levels, with a learned 1x1 projection, which FPN's equal channels do not need;
# - the smaller grid of the two by area pooling instead of the teacher's by interpolation;
# - statistics of the batch of all processes, biased variance + 1e-5, instead of each process's, unbiased deviation + 1e-6.
model = dict(
    type='Distiller', pairs='auto', connector=dict(type='Align'),
    losses=[dict(type='FeatureMSE', name='pkd', weight=0.5 * 6.0)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
