# KD (Hinton et al., arXiv 1503.02531, section 2). Departures: the task loss keeps its weight of 1; T = 4 is the later literature's; the weight
# is what `compare.py --tune` chose (docs/results/tuning_cls.jsonl).
model = dict(type='Distiller', pairs=[], logits=[dict(type='KLDivergence', name='kd', weight=0.25, temperature=4.0)])
