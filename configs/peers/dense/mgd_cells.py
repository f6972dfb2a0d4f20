# MGD (Yang et al., arXiv 2205.01529) as the authors' code for detection has it: cells are hidden, with probability 0.65 (0.75 in segmentation's),
# on every level of the pyramid, weight 2e-5 of the sum over a picture.
# Departures: as in mgd.py; and segmentors, which have no pyramid, on every stage of the backbone, theirs on the last.
_base_ = '../mgd.py'
model = dict(
    stages=None, connector=dict(ratio=0.65, masked='cells'),
    losses=[dict(type='FeatureMSE', name='mgd', weight=2e-5, reduction='batchmean')])
