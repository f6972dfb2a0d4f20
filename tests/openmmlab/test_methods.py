"""The model by which each method teaches a pair's student."""
from sfkd.openmmlab.methods import model_of

PAIR = 'sfkd::mini/cls_resnet_to_mixer.py'


def test_options_for_all_methods_come_before_a_methods_own():
    options = {'model.student.backbone.patch_size': 16, 'model.task_weight': 0.5, 'train_cfg.max_epochs': 2}
    stock, untouched = model_of(PAIR, 'alone'), dict(options)
    alone, kd, own = (model_of(PAIR, method, options) for method in ('alone', 'kd', 'kd+task_weight=0.25'))
    assert options == untouched
    assert [model.backbone.patch_size for model in (stock, alone, kd.student, own.student)] == [8, 16, 16, 16]
    assert 'task_weight' not in alone and (kd.task_weight, own.task_weight) == (0.5, 0.25)
    assert kd.logits[0].type == 'KLDivergence'
