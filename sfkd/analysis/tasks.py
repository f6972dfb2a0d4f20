"""What tools/compare.py compares: of each task the metric, the pairs, the methods, and what differs by a part."""
from __future__ import annotations

from ..openmmlab.methods import DENSE_PEERS, PEERS

#: Task -> what its students are scored by.
METRICS = dict(cls='accuracy/top1', fashion='accuracy/top1', det='coco/bbox_mAP', det_pretrained='coco/bbox_mAP',
               seg='mIoU', seg_pretrained='mIoU')
#: Task -> pair -> config.
PAIRS = dict(
    cls={pair: f'sfkd::mini/cls_{pair}.py' for pair in (
        'resnet_to_mixer', 'resnet_to_vit', 'swin_to_resnet8', 'resnet_to_resnet8', 'resnet_to_swin')},
    fashion={f'fashion_{pair}': f'sfkd::fashion/{pair}.py' for pair in (
        'resnet_to_mixer', 'swin_to_resnet4', 'resnet_to_resnet4', 'resnet_to_swin16')},
    det={pair: f'sfkd::mini/{pair}.py' for pair in ('det_swin_to_resnet8', 'det_swin_to_mobilenet')},
    seg={'seg_swin_to_resnet8': 'sfkd::mini/seg_swin_to_resnet8.py'},
    **{f'{task}_pretrained': {f'pretrained_{task}_{pair}': f'sfkd::pretrained/{task}_{pair}.py' for pair in (
        'mit_to_resnet8', 'resnet_to_mit8')} for task in ('det', 'seg')})
TASK_OF = {pair: task for task, pairs in PAIRS.items() for pair in pairs}
BASELINES = ('alone', 'kd', 'aligned_mse', 'sfkd')
#: What --methods is by default where no validation split has chosen weights; of detectors and segmentors, which have no
#: scores of whole pictures, the second.
PLAIN = ['alone', 'sfkd', 'sfkd_lean', *PEERS]
DENSE = ['alone', 'sfkd', 'sfkd_lean', 'aligned_mse', 'fitnet', 'pkd', 'freekd', 'cwd', *DENSE_PEERS]
_WHOLE, _LEAN = (f'{name}+spatial_weight=0.625+frequency_weight=0.625' for name in ('sfkd', 'sfkd_lean'))
_PLAIN = 'aligned_mse+losses.0.weight=0.625'
#: CWD of class maps beside features, as SFKD's logit term and as that of the peers.
_CLASSES = 'logit_weight=5.0+logit_loss=ChannelWiseDivergence'
_BESIDE = 'logits.0.weight=5.0+logits.0.type=ChannelWiseDivergence+logits.0.temperature=1.0'
#: Task -> what --methods is by default: the best trial of each on its validation split (docs/ablation.md), then what
#: tells SFKD's parts apart. Elsewhere the methods are as their configs have them, which is as classification's
#: validation split chose.
CHOSEN = dict(
    fashion=[
        'alone', 'kd+logits.0.weight=0.0625', 'ofa+losses.0.weight=1+logits.0.weight=1', 'rsd+losses.0.weight=0.1',
        'cwd+losses.0.weight=5+logits.0.weight=1.0', 'aligned_mse+losses.0.weight=2.5', f'{_LEAN}+logit_weight=1.0',
        _WHOLE, f'{_WHOLE}+levels=0', _LEAN, _PLAIN],
    seg_pretrained=[
        'alone', f'{_WHOLE}+{_CLASSES}', f'{_LEAN}+{_CLASSES}', f'{_PLAIN}+{_BESIDE}',
        f'pkd+losses.0.weight=0.75+{_BESIDE}', f'cwd+losses.0.weight=20+{_BESIDE}',
        f'mgd_cells+losses.0.weight=0.00032+{_BESIDE}', 'cwd_classes+losses.0.weight=5',
        'kd_classes+losses.0.weight=0.0625', f'{_WHOLE}+{_CLASSES}+levels=0', _WHOLE])


def _parts(whole: str, lean: str, plain: str) -> dict[str, tuple[str, str]]:
    """Part of SFKD -> the method that has it and the one that lacks it."""
    return dict(DWT=(whole, f'{whole}+levels=0'), DS2S=(whole, lean), GFFL=(lean, plain), all=(whole, plain))


#: Task -> what tells the parts apart there, methods of one weight.
PARTS = (dict.fromkeys(METRICS, _parts('sfkd', 'sfkd_lean', 'aligned_mse'))
         | dict(fashion=_parts(_WHOLE, _LEAN, _PLAIN), seg_pretrained=dict(
             _parts(f'{_WHOLE}+{_CLASSES}', f'{_LEAN}+{_CLASSES}', f'{_PLAIN}+{_BESIDE}'),
             logits=(f'{_WHOLE}+{_CLASSES}', _WHOLE))))


def classifies(task: str) -> bool:
    """Whether its students score whole pictures."""
    return METRICS[task] == METRICS['cls']


def default_methods(task: str, tuning: bool = False) -> list[str]:
    """What is compared where --methods names none."""
    plain = PLAIN if classifies(task) else DENSE
    return plain if tuning else CHOSEN.get(task, plain)


def baselines(task: str) -> list[str]:
    """What differences are to by default, as the task's table has it."""
    first: dict[str, str] = {}
    for name in CHOSEN.get(task, BASELINES):
        first.setdefault(name.partition('+')[0], name)
    return [first[baseline] for baseline in BASELINES if baseline in first]
