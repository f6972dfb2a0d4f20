# RKD-DA (Park et al., arXiv 1904.05068, section 3.2), distance 25 and angle 50. Departures: the embeddings are the deepest automatic pair's
# maps, averaged over the grid; a quarter of these weights, beside logit KD, is what `compare.py --tune` chose (docs/short_budgets.md).
model = dict(
    type='Distiller', pairs='auto', stages=[-1],
    losses=[dict(type='RelationalKD', name='rkd', weight=0.25, distance_weight=25.0, angle_weight=50.0)],
    logits=[dict(type='KLDivergence', name='kd', weight=1.0, temperature=4.0)])
