"""What every tool does first."""
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config

from sfkd import SFKD
from sfkd.datasets.digits_wild import generate_cls
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.hooks import InvalidLossHook
from sfkd.openmmlab.running import (
    add_hooks,
    build_runner,
    check_data,
    is_distillation,
    load_config,
    log_to,
    plain_scores,
    score_on,
    student_config,
)
from sfkd.registry import MODELS, ROOT_MODELS, register_entry_point

CYCLES = '''
import resource, torch
from sfkd.openmmlab.running import keep_freed_memory
{prepare}
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = pages()
for _ in range(20):
    torch.zeros(16, 2 ** 20).add_(1)  # 64 MiB
print(pages() - before)
'''

LATE = '''
import multiprocessing, os, time
from sfkd.openmmlab.workers import end_with_parent
def work(parent):
    while os.getppid() == parent:
        time.sleep(0.01)
    end_with_parent()
    print('goes on')
if __name__ == '__main__':
    multiprocessing.get_context({method!r}).Process(target=work, args=(os.getpid(), )).start()
    os._exit(0)
'''

#: A pair both of whose networks are paths.
PATHS = '''
_base_ = 'sfkd::mini/cls_mixer.py'
custom_imports = dict(imports=['sfkd'])
model = dict(_delete_=True, type='SFKD', student='sfkd::mini/cls_mixer', teacher='sfkd::mini/cls_resnet',
             teacher_ckpt='init')
'''


@pytest.mark.skipif(sys.platform != 'linux' or torch.cuda.is_available(), reason='for Linux without GPU')
def test_freed_memory_is_kept_for_the_next_tensors():
    """Counted in pages that the system had to give: for twenty tensors in turn, or for the first two."""
    def pages(prepare: str) -> int:
        command = [sys.executable, '-c', CYCLES.format(prepare=prepare)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    default, kept = pages(''), pages('keep_freed_memory()')
    assert kept < default / 5


@pytest.mark.skipif(sys.platform != 'linux', reason='for Linux')
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_a_data_worker_whose_run_is_gone_before_it_begins_ends(tmp_path, method):
    """Nobody would tell it: its parent is another process by then."""
    (tmp_path / 'late.py').write_text(LATE.format(method=method))
    done = subprocess.run([sys.executable, tmp_path / 'late.py'], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, '')


@pytest.fixture
def registered():
    """A user's own distillation."""
    @register_entry_point
    class Gentle(SFKD):
        pass
    yield Gentle
    for registry in (MODELS, ROOT_MODELS):
        registry.module_dict.pop('Gentle')


def test_a_registered_subclass_is_a_distillation_with_checkpoints_of_its_student(zoo, registered, tmp_path):
    generate_cls(tmp_path / 'data', counts=dict(train=8, val=2, test=2))
    config = load_config('configs/mini/cls_resnet_to_mixer.py', str(tmp_path / 'run'), {
        'model.type': 'sfkd.Gentle', 'model.teacher_ckpt': 'init', 'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.data_root': str(tmp_path / 'data'), 'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0, 'param_scheduler.1.end': 3, 'param_scheduler.1.T_max': 2})
    assert is_distillation(config)
    config.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    with torch.random.fork_rng():
        runner = build_runner(config)
        runner.train()
    assert isinstance(runner.model, registered)
    weights = torch.load(tmp_path / 'run/student_latest.pth', weights_only=False)['state_dict']
    assert list(weights) == list(runner.model.student.state_dict())


@pytest.mark.parametrize('kind, distils', [
    ('SFKD', True), ('sfkd.Distiller', True), (SFKD, True), ('ImageClassifier', False), ('NoSuchModel', False)])
def test_what_is_a_distillation(kind, distils):
    assert is_distillation(Config(dict(default_scope='mmpretrain', model=dict(type=kind)))) == distils


CLASSES = '''
from mmengine.hooks import CheckpointHook
from mmengine.visualization import TensorboardVisBackend, Visualizer
from sfkd import SFKD
from sfkd.openmmlab.hooks import InvalidLossHook

default_scope = 'mmpretrain'
model = dict(type=SFKD)
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=3))
custom_hooks = [dict(type=InvalidLossHook, interval=7)]
visualizer = dict(type=Visualizer, vis_backends=[dict(type=TensorboardVisBackend)])
'''


def test_a_config_of_classes_and_its_dump_get_the_hooks_of_a_config_of_names(tmp_path):
    (tmp_path / 'classes.py').write_text(CLASSES)
    Config.fromfile(tmp_path / 'classes.py').dump(tmp_path / 'dump.py')
    for name in ('classes.py', 'dump.py'):
        config = Config.fromfile(tmp_path / name)
        add_hooks(config)
        log_to(config, ['tensorboard'])
        assert config.default_hooks.checkpoint == dict(type='sfkd.ResumableCheckpointHook', interval=3)
        assert config.custom_hooks[0].interval == 7 and [hook.type for hook in config.custom_hooks[1:]] == [
            'sfkd.StudentCheckpointHook', 'sfkd.DataCheckHook', 'sfkd.ProgressHook', 'sfkd.CurveGroupsHook']
        assert len(config.visualizer.vis_backends) == 1


OURS = dict(type='sfkd.ResumableCheckpointHook', interval=1)


@pytest.mark.parametrize('default_hooks, expected', [
    ({}, OURS), (dict(default_hooks=None), OURS), (dict(default_hooks=dict(timer=dict(type='IterTimerHook'))), OURS),
    (dict(default_hooks=dict(checkpoint=dict(type='mmengine.CheckpointHook', interval=1))), OURS),
    (dict(default_hooks=dict(checkpoint=None)), None)])
def test_checkpoints_survive_unless_none_are_wanted(default_hooks, expected):
    config = Config(dict(default_scope='mmpretrain', model=dict(type='SFKD'), **default_hooks))
    add_hooks(config)
    assert config.default_hooks.checkpoint == expected


def test_a_hook_derived_from_ours_takes_its_place():
    class Patient(InvalidLossHook):
        pass
    config = Config(dict(default_scope='mmpretrain', model=dict(type='SFKD'), custom_hooks=[dict(type=Patient)]))
    add_hooks(config)
    assert 'sfkd.InvalidLossHook' not in [hook.type for hook in config.custom_hooks]


@pytest.mark.parametrize('student, sources', [
    ('dict', ['config']), ('dict', ['config', 'model']), ('dict', ['config', 'model', 'own']),
    ('dict', ['config', 'model', 'options']), ('path', ['config']), ('path', ['config', 'model']),
    ('path', ['config', 'model', 'stock']), ('path', ['config', 'model', 'stock', 'own'])])
def test_the_student_alone_sees_pictures_as_in_training(zoo, tmp_path, student, sources):
    """Whatever says how they are normalised; the last of the sources counts."""
    given = {source: zoo.mixer(mean=(float(i), ) * 3)['data_preprocessor'] for i, source in enumerate(sources)}

    def with_preprocessor(source, config):
        return dict(config, data_preprocessor=given[source]) if source in given else config
    own = zoo.mixer()
    del own['data_preprocessor']
    own = with_preprocessor('own', own)
    Config(with_preprocessor('stock', dict(model=own, default_scope='mmpretrain'))).dump(tmp_path / 'stock.py')
    model = dict(type='SFKD', student=own if student == 'dict' else str(tmp_path / 'stock.py'), teacher=zoo.resnet(),
                 teacher_ckpt='init', input_size=64, student_options=with_preprocessor('options', {}) or None)
    config = Config(with_preprocessor('config', dict(model=with_preprocessor('model', model),
                                                     default_scope='mmpretrain')))
    alone = student_config(config)
    # mmengine's runner, and a cohort, hand the config's own to a model that has none
    models = [build_model(spec, 'test', config.data_preprocessor, 'mmpretrain') for spec in (config.model, alone.model)]
    models.append(build_model(alone.model, 'test', alone.data_preprocessor, 'mmpretrain'))
    assert [network.data_preprocessor.mean.flatten().tolist() for network in models] == [[len(sources) - 1.0] * 3] * 3


def test_scores_of_any_kind_can_be_written():
    scores = dict(top1=50, iou=np.float32(0.5), error=torch.tensor(0.25), classwise=[1.0, 2.0], name='a', none=None,
                  matrix=torch.eye(2, dtype=torch.long), array=np.ones(2))
    expected = dict(top1=50.0, iou=0.5, error=0.25, classwise=[1.0, 2.0], name='a', none=None,
                    matrix=[[1, 0], [0, 1]], array=[1.0, 1.0])
    assert json.loads(json.dumps(plain_scores(scores))) == expected
    assert isinstance(plain_scores(scores)['top1'], float)


def test_data_elsewhere_are_not_looked_for_here(tmp_path):
    remote = dict(train_dataloader=dict(dataset=dict(data_root='s3://bucket/coco/', ann_file='annotations/train.json')),
                  val_dataloader=dict(dataset=dict(data_root='', ann_file='https://host/val.json')))
    check_data(Config(remote))
    local = dict(data_root=str(tmp_path), ann_file='https://host/val.json', data_prefix=dict(img='none/'))
    with pytest.raises(ConfigError) as caught:
        check_data(Config(dict(remote, test_dataloader=dict(dataset=local))))
    problem, = caught.value.problems
    assert problem.startswith(f"test_dataloader.dataset.data_prefix.img: there is no '{tmp_path}/none'")


@pytest.mark.parametrize('key, message', [
    ('model.student.head.num_classes', "model.student is the path 'sfkd::mini/cls_mixer', in which no key can be set; "
     'give model.student_options.head.num_classes instead'),
    ('model.teacher.backbone.depth', "model.teacher is the path 'sfkd::mini/cls_resnet', in which no key can be set; "
     'write a config of which it is the _base_ with backbone.depth in its model, and give that as model.teacher'),
    ('train_cfg.max_epochs.x', "max_epochs={'x': 7} in child config cannot inherit from base")])
def test_an_option_that_cannot_be_set_is_named_with_the_way(tmp_path, key, message):
    (tmp_path / 'pair.py').write_text(PATHS)
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path / 'pair.py'), options={'randomness.seed': 1, key: 7})
    problem, = caught.value.problems
    assert problem.startswith(f"{key if 'model' in key else '--cfg-options'}: {message}")


def test_the_ways_to_other_networks_than_the_paths_lead_there(tmp_path):
    (tmp_path / 'teacher.py').write_text("_base_ = 'sfkd::mini/cls_resnet.py'\nmodel = dict(backbone=dict(depth=34))\n")
    (tmp_path / 'pair.py').write_text(PATHS)
    config = load_config(str(tmp_path / 'pair.py'), options={'model.student_options.backbone.patch_size': 16,
                                                            'model.teacher': str(tmp_path / 'teacher.py')})
    distiller = build_model(config.model, 'model', config.data_preprocessor, 'mmpretrain')
    assert distiller.backbone.patch_embed.projection.kernel_size == (16, 16)
    assert distiller.distillation.teacher.network.backbone.depth == 34


def test_a_split_that_a_config_lacks_cannot_be_scored_on():
    config = Config(dict(val_dataloader=dict(batch_size=2), val_evaluator='v', test_dataloader=dict(batch_size=1)))
    score_on(config, 'test')
    assert config.test_dataloader.batch_size == 1
    score_on(config, 'val')
    assert config.test_dataloader.batch_size == 2 and config.test_evaluator == 'v' and config.test_cfg is None
    with pytest.raises(ConfigError, match='val_dataloader: the config has none'):
        score_on(Config(dict(val_dataloader=None, test_dataloader={})), 'val')
