# DKD (Zhao et al., arXiv 2203.08679, section 3). alpha, beta and T as the authors have them for ImageNet, ResNet-50 to MobileNet, and OFA's
# authors for pairs of different kinds; on CIFAR-100 DKD's take T = 4 and beta 2 to 8 by pair. Departures:
# - the target is the teacher's most probable class, not the label;
# - no warm-up of the loss's weight (1 epoch on ImageNet, 20 on CIFAR-100).
model = dict(
    type='Distiller', pairs=[], logits=[dict(type='DKD', name='dkd', weight=1.0, alpha=1.0, beta=2.0, temperature=1.0)])
