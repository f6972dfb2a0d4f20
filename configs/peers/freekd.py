# FreeKD (Zhang et al., arXiv 2311.12079) without its prompts, on backbone stages, as its authors' code computes it: L1 of the details of
# three Haar levels, weight 1, and MSE of the maps, weight 5, which by Parseval is BandMSE balanced by gain.
# Here both are four times as much, which is what `compare.py --tune` chose (docs/short_budgets.md).
# Departures:
# - no frequency prompts: they are learned on the teacher in a stage of their own, so every mask, a sigmoid there, is 1 here;
# - no position-aware weights, which the paper describes and the published code lacks;
# - every pair of backbone stages instead of five FPN levels, on the smaller grid of the two; fewer levels where the grid allows no three;
# - no distillation of the regression head.
model = dict(
    type='Distiller', pairs='auto', connector=dict(type='WaveletConnector', levels=3, refine=False, standardised=False),
    losses=[dict(type='DetailL1', name='frequency', weight=4.0), dict(type='BandMSE', name='mse', weight=20.0)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
