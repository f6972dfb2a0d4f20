# SRRL (Yang et al., Knowledge Distillation via Softmax Regression Representation Learning, ICLR 2021): the student's last map through a 1x1 convolution,
# batch normalisation and ReLU is compared with the teacher's where both are pooled, and goes through the teacher's frozen classifier, whose scores
# are compared with its own by MSE. Both weights are 1, as in the authors' code (train_imagenet_distillation.py), whose command line has no logit KD.
# Departures:
# - the map is the deepest automatic pair's, on the smaller of the two grids, and what comes after it in the teacher is run as it is (for a
#   transformer a normalisation may lie between);
# - a detector or segmentor is judged by its class maps.
model = dict(
    type='Distiller', pairs='auto', stages=[-1], connector=dict(type='ConvModuleConnector', norm_cfg=dict(type='BN')),
    losses=[dict(type='PooledMSE', name='fm', weight=1.0)], anchor=dict(type='FeatureMSE', weight=1.0),
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
