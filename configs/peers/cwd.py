# CWD (Shu et al., arXiv 2011.13256, section 3) on backbone stages.
# Weight 5 and T = 1 are those of the authors' published detection config, on feature maps (four FPN levels); mmrazor has weight 10 there.
# Departures:
# - every pair of backbone stages instead of FPN levels or segmentation logits, none on logits;
# - the smaller grid of the two by area pooling, and always a 1x1 projection, which FPN's equal channels do not need.
model = dict(
    type='Distiller', pairs='auto', connector=dict(type='Align', standardised=False),
    losses=[dict(type='ChannelWiseDivergence', name='cwd', weight=5.0, temperature=1.0)],
    logits=[dict(type='KLDivergence', name='kd', weight=0.0, temperature=4.0)])
