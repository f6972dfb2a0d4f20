"""A run's config: what it is, its student alone, options, data."""
import pytest
from mmengine.config import Config

from sfkd import SFKD
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.configs import check_data, is_distillation, load_config, score_on, student_config

#: A pair both of whose networks are paths.
PATHS = '''
_base_ = 'sfkd::mini/cls_mixer.py'
custom_imports = dict(imports=['sfkd'])
model = dict(_delete_=True, type='SFKD', student='sfkd::mini/cls_mixer', teacher='sfkd::mini/cls_resnet',
             teacher_ckpt='init')
'''


@pytest.mark.parametrize('kind, distils', [
    ('SFKD', True), ('sfkd.Distiller', True), (SFKD, True), ('ImageClassifier', False), ('NoSuchModel', False)])
def test_what_is_a_distillation(kind, distils):
    assert is_distillation(Config(dict(default_scope='mmpretrain', model=dict(type=kind)))) == distils


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
    config = Config(dict(val_dataloader=dict(batch_size=2), val_evaluator='v', val_cfg=dict(type='ValLoop'),
                         test_dataloader=dict(batch_size=1)))
    score_on(config, 'test')
    assert config.test_dataloader.batch_size == 1
    score_on(config, 'val')
    assert config.test_dataloader.batch_size == 2 and config.test_evaluator == 'v' and config.test_cfg == {}
    with pytest.raises(ConfigError, match='val_dataloader: the config has none'):
        score_on(Config(dict(val_dataloader=None, test_dataloader={})), 'val')
