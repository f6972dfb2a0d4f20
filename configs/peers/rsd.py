# RSD (Zhang et al., Cross-Architecture Distillation Made Simple with Redundancy Suppression, ICCV 2025, arXiv 2507.21844). The projector (gamma
# 2), the loss (kappa 0.01) and the weight are the defaults of the authors' code (distillers/rsd.py, train.py), whose batch is 128 a process;
# it has no logit KD.
# Departures:
# - the embeddings are the deepest automatic pair's maps, averaged over the grid, instead of what enters the classifiers: a ViT's tokens, not
#   its class token, and in networks of equal blocks (ViT, Mixer) before the last normalisation.
model = dict(
    type='Distiller', pairs='auto', stages=[-1], connector=dict(type='EmbeddingProjector', gamma=2),
    losses=[dict(type='RedundancySuppression', name='rsd', weight=0.1, kappa=0.01)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
