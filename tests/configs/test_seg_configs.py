"""The segmentation configs say what they do, build without a download, and train and predict with the real models."""
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, DefaultScope

mmseg = pytest.importorskip('mmseg')
from sfkd.datasets.digits_wild import generate_seg  # noqa: E402
from sfkd.openmmlab.building import build_model, read_config  # noqa: E402
from sfkd.registry import MODELS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DISTILLATIONS = sorted((ROOT / 'configs/sfkd').glob('seg_*.py'))
#: what a config's name promises: its student is trained as this config trains it alone
STUDENTS = dict(pspnet_r18='configs/sfkd/students/pspnet_r18.py',
                deeplabv3plus_r18='configs/sfkd/students/deeplabv3plus_r18.py',
                deeplabv3plus_mnv2='mmseg::mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb4-160k_ade20k-512x512.py',
                segformer_b0='mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py')
TEACHERS = dict(upernet_swin_t='swin/swin-tiny-', segformer_b3='segformer/segformer_mit-b3_',
                upernet_deit_s='vit/vit_deit-s16_upernet_', upernet_convnext_t='convnext/convnext-tiny_upernet_',
                pspnet_r101='pspnet/pspnet_r101-d8_')
LAYERS = [f'backbone.layer{i}' for i in range(1, 5)]
NORMS = [f'backbone.norm{i}' for i in range(4)]
MIT = [f'backbone.layers.{i}.2' for i in range(4)]  # the norm behind each stage's blocks
#: the ends of the four stages, shallow to deep: of a dilated network too, whose last three share a stride
STAGES = dict(pspnet_r18=LAYERS, deeplabv3plus_r18=LAYERS, pspnet_r101=LAYERS,
              deeplabv3plus_mnv2=[f'backbone.layer{i}' for i in (2, 3, 5, 7)],
              segformer_b0=MIT, segformer_b3=MIT, upernet_swin_t=NORMS,
              upernet_deit_s=[f'backbone.layers.{i}' for i in (2, 5, 8, 11)],
              upernet_convnext_t=[f'backbone.downsample_layers.{i}.0' for i in (1, 2, 3)] + ['backbone.norm3'])
#: the others share their student or teacher with one of these
QUICK = ('seg_upernet_convnext_t_to_segformer_b0', 'seg_upernet_deit_s_to_deeplabv3plus_mnv2',
         'seg_upernet_swin_t_to_pspnet_r18')
SIZE = 128

every_config = pytest.mark.parametrize('path', DISTILLATIONS, ids=lambda path: path.stem)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Two pictures, 128x128 and 128x160, laid out as ADE20K."""
    folder = tmp_path_factory.mktemp('seg') / 'data'
    generate_seg(folder, counts=dict(train=11, val=0, test=0))
    return folder


def load(config, pictures, loader):
    """The two pictures as one of the config's own loaders gives them, at the size of these tests."""
    dataset = config[loader].dataset
    for transform in dataset.pipeline:
        if 'scale' in transform:
            transform.scale = (4 * SIZE, SIZE)
        if 'crop_size' in transform:
            transform.crop_size = (SIZE, SIZE)
    dataset.update(data_root=str(pictures), img_suffix='.png',
                   data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'))
    dataset = DATASETS.build(dataset)
    return pseudo_collate([dataset[i] for i in (0, 10)])


def halves(path):
    return path.stem.removeprefix('seg_').split('_to_')


@every_config
def test_comment_states_command_schedule_and_batch(path):
    config, comment = Config.fromfile(path), path.read_text().partition('_base_')[0]
    command = re.search(rf'bash tools/dist_train.sh {path.relative_to(ROOT)} (\d+)', comment)
    gpus, per_gpu, total = map(int, re.search(r'Total batch (\d+) x (\d+) = (\d+)', comment).groups())
    assert gpus == int(command[1]) and gpus * per_gpu == total == 16 and per_gpu == config.train_dataloader.batch_size
    assert total == config.auto_scale_lr.base_batch_size
    thousands, optimizer = re.search(r'\((\d+)k iterations, (\w+)\)', comment).groups()
    assert int(thousands) * 1000 == config.train_cfg.max_iters and optimizer == config.optim_wrapper.optimizer.type
    assert 'sfkd' in config.custom_imports.imports and config.model.type == 'SFKD' and config.model.input_size == 512
    assert config.train_dataloader.dataset.type == 'ADE20KDataset'


@every_config
def test_the_teacher_is_the_one_of_the_name(path):
    teacher = Config.fromfile(path).model.teacher
    assert teacher.startswith(f'mmseg::{TEACHERS[halves(path)[0]]}') and 'ade20k-512x512' in teacher


@every_config
def test_the_student_is_trained_as_alone(path, plain):
    config, alone = Config.fromfile(path), read_config(STUDENTS[halves(path)[1]], 'test')
    assert plain(config.model.student) == plain(alone.model)
    for key in alone.keys() - {'model'}:
        assert plain(config[key]) == plain(alone[key]), key


@pytest.mark.parametrize('path', [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.long)
                                  for p in DISTILLATIONS])
def test_trains_and_predicts(path, pictures, step):
    """Two digits pictures through the config's own pipelines, both networks, the losses, the optimizer, and the
    student's prediction.
    """
    config = Config.fromfile(path)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        teacher = build_model(config.model.teacher, 'test')
        for parameter in teacher.parameters():  # some models leave a few as the memory was, which may be no number
            torch.nan_to_num_(parameter.data, 0.0, 0.0, 0.0).clamp_(-1, 1)
        distiller = MODELS.build(dict(config.model, teacher=teacher, teacher_ckpt=None, input_size=SIZE))
        optimizer = build_optim_wrapper(distiller, config.optim_wrapper)
        shown, batch = load(config, pictures, 'val_dataloader'), load(config, pictures, 'train_dataloader')
    distiller.data_preprocessor.size = (SIZE, SIZE)
    assert [(pair.student_path, pair.teacher_path)
            for pair in distiller.distillation.pairs if pair.student_path != 'decode_head.conv_seg'] == list(zip(
        STAGES[halves(path)[1]], STAGES[halves(path)[0]]))

    one = {key: value[1:] for key, value in shown.items()}  # mmseg tests pictures of one shape at a time
    found, = distiller.eval().test_step(one)
    assert found.pred_sem_seg.data.shape == (1, 128, 160) and found.seg_logits.data.shape[0] == 150

    logged, moved = step(distiller, batch, optimizer)
    assert all((sample.gt_sem_seg.data == 255).any() for sample in batch['data_samples'])  # the background, reduced
    assert {f'distill.{pair.name}.loss_{name}' for pair in distiller.distillation.pairs
            for name in pair.losses} < set(logged)
    assert moved or config.param_scheduler[0].type == 'LinearLR'
