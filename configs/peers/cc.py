# CC (Peng et al., arXiv 1904.01802, section 3): the Gaussian RBF kernel by its Taylor series of order 2, gamma 0.4. Departures:
# - the correlation term alone, without the paper's logit distillation, as peers' tables have it;
# - batches as the recipe draws them, not by the paper's class-aware samplers;
# - weight and gamma are those of a public reimplementation (AberHu/Knowledge-Distillation-Zoo): the paper's could not be checked.
model = dict(
    type='Distiller', pairs='auto', stages=[-1],
    losses=[dict(type='CorrelationCongruence', name='cc', weight=100.0, gamma=0.4, order=2)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
