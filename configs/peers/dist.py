# DIST (Huang et al., arXiv 2205.10536, section 4). beta and gamma as the authors have them for ImageNet, where T is 1 (CIFAR-100: 2, 2 and
# T = 4); T is what `compare.py --tune` chose (docs/short_budgets.md).
# Departure: constant vectors are met by a floor under each norm, not by a sum with the product of the norms.
model = dict(type='Distiller', pairs=[], logits=[dict(type='DIST', name='dist', weight=1.0, beta=1.0, gamma=1.0, temperature=4.0)])
