# CWD (Shu et al., arXiv 2011.13256, section 3) on class maps, of two segmentors or two one-stage detectors with the same classes.
# Weight 5 and T = 1 are those of mmrazor's config for PSPNet (cwd_logits_pspnet_r101-d8_pspnet_r18-d8), which the authors wrote.
# Departure: the smaller grid of the two by area pooling; theirs brings the student's to the teacher's by interpolation.
_base_ = '../cwd.py'
model = dict(pairs='classes', connector=dict(type='CommonGrid', _delete_=True))
