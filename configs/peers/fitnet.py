# FitNet (Romero et al., arXiv 1412.6550, eq. 3) on backbone stages: plain MSE to the teacher's own values through a learned regressor.
# Departures from the paper:
# - one training with the task loss: the paper fits the hint first, without a task loss and therefore without a weight, then distils logits;
# - every pair of stages instead of one middle layer, and a 1x1 regressor on the smaller grid instead of a larger kernel;
# - a mean instead of half the sum. The mean, all stages and weight 1 are what OFA-KD's authors (arXiv 2310.19444) run as FitNet; the weight
#   here is what `compare.py --tune` chose (docs/short_budgets.md).
model = dict(
    type='Distiller', pairs='auto', connector=dict(type='Align', standardised=False),
    losses=[dict(type='FeatureMSE', name='hint', weight=4.0)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
