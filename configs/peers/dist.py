# DIST (Huang et al., arXiv 2205.10536, section 4). Weights and T as the authors have them for ImageNet (CIFAR-100: 2, 2 and T = 4).
# Departure: constant vectors are met by a floor under each norm, not by a sum with the product of the norms.
model = dict(type='Distiller', pairs=[], logits=[dict(type='DIST', name='dist', weight=1.0, beta=1.0, gamma=1.0, temperature=1.0)])
