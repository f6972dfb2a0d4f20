# CC (Peng et al., arXiv 1904.01802, section 3): the Gaussian RBF kernel by its Taylor series of order 2, gamma 0.4. Departures:
# - batches as the recipe draws them, not by the paper's class-aware samplers;
# - gamma is that of a public reimplementation (AberHu/Knowledge-Distillation-Zoo), whose weight is 100: the paper's could not be checked;
# - the weight and logit KD are what `compare.py --tune` chose (docs/short_budgets.md).
model = dict(
    type='Distiller', pairs='auto', stages=[-1],
    losses=[dict(type='CorrelationCongruence', name='cc', weight=25.0, gamma=0.4, order=2)],
    logits=[dict(type='KLDivergence', name='kd', weight=1.0, temperature=4.0)])
