"""The detection configs say what they do, build without a download, and train and predict with the real models."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

mmdet = pytest.importorskip('mmdet')
from sfkd.datasets.digits_wild import generate_det  # noqa: E402
from sfkd.openmmlab.building import build_model, read_config  # noqa: E402
from sfkd.registry import MODELS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DISTILLATIONS = sorted((ROOT / 'configs/sfkd').glob('det_*.py'))
#: what a config's name promises: its student is trained as this config trains it alone
STUDENTS = dict(retinanet_r50='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
                fcos_r50='mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
                faster_rcnn_r18='configs/sfkd/students/faster_rcnn_r18.py', gfl_r18='configs/sfkd/students/gfl_r18.py',
                gfl_mnv2='configs/sfkd/students/gfl_mnv2.py')
TEACHERS = dict(maskrcnn_swin_t='mmdet::swin/mask-rcnn_swin-t-', maskrcnn_swin_s='mmdet::swin/mask-rcnn_swin-s-',
                retinanet_r101='mmdet::retinanet/retinanet_r101_', dino_r50='mmdet::dino/dino-4scale_r50_')
# the cheapest ones; the others where a minute more is no matter
QUICK = ('det_dino_r50_to_gfl_r18', 'det_maskrcnn_swin_t_to_gfl_mnv2')
SMALL = (256, 208)  # of 160x128: the deepest levels keep two rows

every_config = pytest.mark.parametrize('path', DISTILLATIONS, ids=lambda path: path.stem)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """A folder of eleven pictures, of which the first is 128x128 and the last 128x160."""
    folder = tmp_path_factory.mktemp('det') / 'data'
    generate_det(folder, counts=dict(train=11, val=0, test=0))
    return folder


def load(pictures, pipeline):
    config = Config.fromfile(ROOT / 'configs/_base_/datasets/digits_wild_det.py').dataset
    config.update(data_root=str(pictures), ann_file='annotations/train.json', data_prefix=dict(img='train'),
                  pipeline=pipeline, indices=[0, 10])
    dataset = mmdet.datasets.CocoDataset(**{key: value for key, value in config.items() if key != 'type'})
    return pseudo_collate([dataset[i] for i in range(2)])


def halves(path):
    return path.stem.removeprefix('det_').split('_to_')


@every_config
def test_comment_states_command_schedule_and_batch(path):
    config, comment = Config.fromfile(path), path.read_text().partition('_base_')[0]
    assert f'bash tools/dist_train.sh {path.relative_to(ROOT)} 8' in comment
    gpus, per_gpu, total = map(int, re.search(r'[Tt]otal batch (\d+) x (\d+) = (\d+)', comment).groups())
    assert gpus * per_gpu == total == config.auto_scale_lr.base_batch_size
    assert per_gpu == config.train_dataloader.batch_size
    epochs, optimizer = re.search(r'\((\d+) epochs, (\w+)\)', comment).groups()
    assert int(epochs) == config.train_cfg.max_epochs and optimizer == config.optim_wrapper.optimizer.type
    assert 'sfkd' in config.custom_imports.imports and config.model.type == 'SFKD'


@every_config
def test_the_teacher_is_the_one_of_the_name(path):
    assert Config.fromfile(path).model.teacher.startswith(TEACHERS[halves(path)[0]])


@every_config
def test_the_student_is_trained_as_alone(path, plain):
    config, alone = Config.fromfile(path), read_config(STUDENTS[halves(path)[1]], 'test')
    assert plain(config.model.student) == plain(alone.model)
    for key in alone.keys() - {'model'}:
        assert plain(config[key]) == plain(alone[key]), key


@pytest.mark.parametrize('path', [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.long)
                                  for p in DISTILLATIONS])
def test_trains_and_predicts(path, pictures, step, tmp_path):
    """Two digits pictures of different shapes through both networks, the losses, the config's optimizer, and the
    student's prediction.
    """
    config = Config.fromfile(path)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        teacher = build_model(config.model.teacher, 'test')
        for parameter in teacher.parameters():  # some of DINO's are left as the memory was, which may be no number
            torch.nan_to_num_(parameter.data, 0.0, 0.0, 0.0).clamp_(-1, 1)
        as_file = path.stem.endswith('gfl_mnv2')  # once as a user gives it: in a file, as published ones are
        if as_file:
            torch.save(dict(meta={}, state_dict=teacher.state_dict()), tmp_path / 'teacher.pth')
        from_file = dict(teacher_ckpt=str(tmp_path / 'teacher.pth'))
        given = from_file if as_file else dict(teacher=teacher, teacher_ckpt=None)
        distiller = MODELS.build(dict(config.model, **given, input_size=256))
        optimizer = build_optim_wrapper(distiller, config.optim_wrapper)
        steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=SMALL, keep_ratio=True),
                 dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
        shown, batch = load(pictures, steps), load(pictures, steps)
    weights = distiller.distillation.teacher.network.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in teacher.state_dict().items())
    levels = [pair for pair in distiller.distillation.pairs if pair.student_path.startswith('neck')]
    assert len(levels) >= 4 and all(pair.stages[0].stride == pair.stages[1].stride for pair in levels)

    found = distiller.eval().test_step(shown)
    assert [sample.ori_shape for sample in found] == [(128, 128), (128, 160)]
    assert all(sample.pred_instances.bboxes.shape[1] == 4 and sample.pred_instances.bboxes.isfinite().all()
               for sample in found)

    logged, moved = step(distiller, batch, optimizer)
    assert moved
    assert {f'distill.{pair.name}.loss_{name}' for pair in distiller.distillation.pairs
            for name in pair.losses} < set(logged)
