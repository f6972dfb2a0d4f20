# MGD (Yang et al., arXiv 2205.01529) as the authors' code for classification has it (cls/mmcls/distillation/losses/mgd.py): the deepest maps,
# whole channels hidden with probability 0.15, weight 7e-5 of the sum over a picture (1.76 of the mean of a 512x7x7 map), no logit KD. In their
# code for detection and segmentation cells are hidden, with probability 0.65 and 0.75 (masked='cells', ratio=...), and the weight is 2e-5.
# Departures:
# - both maps on the smaller of the two grids by area pooling; there the grids must be the same;
# - what is padded is left out.
model = dict(
    type='Distiller', pairs='auto', stages=[-1], connector=dict(type='MaskedGeneration', ratio=0.15, masked='channels'),
    losses=[dict(type='FeatureMSE', name='mgd', weight=7e-5, reduction='batchmean')],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
