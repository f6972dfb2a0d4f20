# OFA (Hao et al., arXiv 2310.19444, section 3). gamma and T are the defaults of the authors' code, gamma also that of their
# command for Swin-T to ResNet-18 on CIFAR-100; DeiT-T to ResNet-18 on ImageNet has gamma 1.5, some CIFAR-100 runs weigh the stages by 0.1.
# The weights here, a quarter of their defaults, are what `compare.py --tune` chose (docs/short_budgets.md).
# Departures:
# - one light branch for a student of any kind, not one per architecture;
# - the target is the teacher's most probable class, not the label (at gamma = 1 the loss does not depend on it);
# - only the target is modulated; the authors' code raises every class to gamma (at gamma = 1 the same).
model = dict(
    type='Distiller', pairs='head', connector=dict(type='LogitProjector'),
    losses=[dict(type='OFALoss', name='ofa', weight=0.25, gamma=1.0, temperature=1.0)],
    logits=[dict(type='OFALoss', name='ofa', weight=0.25, gamma=1.0, temperature=1.0)])
