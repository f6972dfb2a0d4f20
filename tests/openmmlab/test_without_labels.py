"""task_weight: how much of the student's own losses is left; at 0 there are none, and no label is asked for."""
import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from sfkd.datasets import PictureFolder
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.data import DataCheckHook
from sfkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


def losses_of(distiller, zoo, labels=True):
    data = distiller.data_preprocessor(zoo.batch(), training=True)
    if not labels:
        from mmpretrain.structures import DataSample
        data['data_samples'] = [DataSample() for _ in data['data_samples']]
    return distiller.train()(**data, mode='loss')


def test_without_it_the_teacher_alone_teaches_and_no_label_is_needed(zoo):
    distiller = zoo.distil(zoo.resnet(), zoo.swin(), task_weight=0)
    whole = zoo.distil(zoo.resnet(), zoo.swin())
    with zoo.recorded(distiller, ['head']) as ran:
        losses = losses_of(distiller, zoo, labels=False)
    stock = losses_of(whole, zoo)
    assert not ran and 'task.loss' in stock
    stock.pop('task.loss')
    assert losses.keys() == stock.keys() and all(torch.equal(losses[key], stock[key]) for key in stock)
    sum(losses.values()).backward()
    assert all(p.grad is None for p in distiller.head.parameters())
    assert all(p.grad is not None for p in distiller.backbone.parameters())


def test_it_multiplies_the_students_own_losses_alone(zoo):
    whole, half = (losses_of(zoo.distil(zoo.resnet(), zoo.swin(), **options), zoo)
                   for options in ({}, dict(task_weight=0.5)))
    assert whole.keys() == half.keys() and whole['task.loss'] > 0
    for key, value in whole.items():
        assert half[key] == (0.5 * value if key == 'task.loss' else value), key


def test_weight_one_is_what_it_was_bit_for_bit(zoo):
    default, one = (losses_of(zoo.distil(zoo.resnet(), zoo.swin(), **options), zoo)
                    for options in ({}, dict(task_weight=1)))
    assert all(torch.equal(default[key], one[key]) for key in default) and default.keys() == one.keys()
    alone = zoo.distil(zoo.resnet(), zoo.swin(), spatial_weight=0, frequency_weight=0)
    assert set(losses_of(alone, zoo)) == {'loss'}  # the stock training's


def test_it_counts_once_where_nothing_teaches(zoo):
    """forward in mode 'loss' calls loss: both are ours."""
    options = dict(spatial_weight=0, frequency_weight=0)
    whole = losses_of(zoo.distil(zoo.resnet(), zoo.swin(), **options), zoo)
    less = losses_of(zoo.distil(zoo.resnet(), zoo.swin(), task_weight=0.5, **options), zoo)
    assert less['task.loss'] == 0.5 * whole['loss'] > 0


def test_scores_can_teach_alone(zoo):
    distiller = zoo.distil(zoo.resnet(), zoo.swin(), task_weight=0, logit_weight=1.0)
    losses = losses_of(distiller, zoo, labels=False)
    assert 'distill.logits.loss_kd' in losses
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in distiller.head.parameters())


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_detectors_and_segmentors_without_labels(task):
    """Losses of several levels are multiplied each; at 0 heads do not run, and a segmentor's labels mask nothing."""
    config = Config.fromfile(ROOT / f'configs/mini/{task}_swin_to_resnet8.py')
    found = {}
    for weight in (1, 0.5, 0):
        with DefaultScope.overwrite_default_scope(config.default_scope):
            torch.manual_seed(0)
            model = MODELS.build(dict(config.model, teacher_ckpt='init', task_weight=weight,
                                      teacher_precision='fp32', data_preprocessor=config.get('data_preprocessor')))
        found[weight] = model, step_of(model.train(), task, labels=weight != 0)
    model, none = found[0]
    assert none and all(key.startswith('distill.') for key in none)
    sum(none.values()).backward()
    heads = [p for name, part in model.named_children() if name.endswith('head') for p in part.parameters()]
    assert heads and all(p.grad is None for p in heads)
    one, half = found[1][1], found[0.5][1]
    own = [key for key in one if 'loss' in key and not key.startswith('distill.')]
    assert own
    for key in own:
        a, b = ([torch.as_tensor(x) for x in (side[key] if isinstance(side[key], list) else [side[key]])]
                for side in (one, half))
        assert all(y == 0.5 * x for x, y in zip(a, b)), key
    other = [key for key in one if key not in own and key.startswith('distill.')]
    assert all(torch.equal(one[key], half[key]) for key in other)


def step_of(model, task, labels):
    pictures = [torch.randint(256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
                for i in range(2)]
    shape = dict(img_shape=(64, 64), ori_shape=(64, 64))
    if task == 'det':
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData
        samples = [DetDataSample(metainfo=shape) for _ in pictures]
        for sample in samples:
            sample.gt_instances = InstanceData(bboxes=torch.tensor([[4., 5, 40, 50]]), labels=torch.tensor([3])) if (
                labels) else InstanceData()  # as mmdetection packs what has none
    else:
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample
        samples = [SegDataSample(metainfo=shape) for _ in pictures]
        for sample in samples if labels else ():
            sample.gt_sem_seg = PixelData(data=torch.ones(1, 64, 64, dtype=torch.long))
    model.data_preprocessor.size = None if task == 'det' else (64, 64)
    data = model.data_preprocessor(dict(inputs=pictures, data_samples=samples), True)
    torch.manual_seed(0)
    return model(**data, mode='loss')


@pytest.mark.parametrize('options, message', [
    (dict(task_weight=-1), 'model.task_weight: -1 is no number from 0'),
    (dict(task_weight=True), 'model.task_weight: True is no number'),
    (dict(task_weight=0, every=2), 'model.every: 2 with task_weight=0'),
    (dict(task_weight=0, until=9), 'model.until: 9 with task_weight=0'),
    (dict(task_weight=0, anchor=dict(share=0.1)), "model.anchor: a share of the task's gradient"),
    (dict(task_weight=0, spatial_weight=0, frequency_weight=0), 'model.task_weight: 0, and .* nothing is left')],
                         ids=str)
def test_what_cannot_be(zoo, options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.distil(zoo.resnet(), zoo.swin(), **options)


def test_it_comes_with_copies_and_with_another_method(zoo, tmp_path):
    assert copy.deepcopy(zoo.distil(zoo.resnet(), zoo.swin(), task_weight=0)).distillation.task_weight == 0
    config = load_config(str(ROOT / 'configs/mini/cls_swin_to_resnet8_without_labels.py'),
                         method=str(ROOT / 'configs/peers/cwd.py'))
    assert config.model.type == 'Distiller' and config.model.task_weight == 0


def test_layers_that_nothing_teaches_are_named(zoo):
    pairs = [dict(student='backbone.layer2', teacher='backbone.stages.1')]
    distiller = zoo.distil(zoo.resnet(), zoo.swin(), pairs=pairs, task_weight=0)
    untaught = distiller.distillation.untaught()
    sum(losses_of(distiller, zoo, labels=False).values()).backward()
    without = {name.rpartition('.')[0] for name, p in distiller.backbone.named_parameters() if p.grad is None}
    assert untaught and {path.removeprefix('backbone.') for path in untaught} == without
    mixed = zoo.distil(zoo.mixer(), zoo.resnet(), task_weight=0).distillation
    assert mixed.untaught() == ['backbone.ln1']  # behind the last block


def test_a_folder_of_pictures_for_losses_that_want_labels_is_refused(zoo, tmp_path):
    from PIL import Image
    Image.new('RGB', (8, 8)).save(tmp_path / '1.png')
    loader = SimpleNamespace(dataset=PictureFolder(tmp_path))
    for model, refused in ((zoo.build(zoo.resnet()), True), (zoo.distil(zoo.resnet(), zoo.swin()), True),
                           (zoo.distil(zoo.resnet(), zoo.swin(), task_weight=0), False)):
        runner = SimpleNamespace(model=model, train_loop=SimpleNamespace(dataloader=loader), val_loop=None)
        if refused:
            with pytest.raises(ConfigError, match='train_dataloader.dataset: a PictureFolder has no labels'):
                DataCheckHook().before_train(runner)
        else:
            DataCheckHook().before_train(runner)

