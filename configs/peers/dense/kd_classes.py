# KD (Hinton et al., arXiv 1503.02531, section 2) of every cell's class scores, of two segmentors with the same classes; weight 1 and T = 1.
# Departure: the smaller grid of the two by area pooling.
model = dict(
    type='Distiller', pairs='classes', connector=dict(type='CommonGrid'),
    losses=[dict(type='KLDivergence', name='kd', weight=1.0, temperature=1.0)])
