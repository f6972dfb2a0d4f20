"""A cohort's students are those of runs alone, with one pass of the teacher."""
import copy

import pytest
import torch
from mmengine.optim import OptimWrapperDict, build_optim_wrapper

from sfkd import randomness
from sfkd.errors import ConfigError
from sfkd.openmmlab import Cohort
from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.cohort import CohortOptimizers

OPTIMIZER = dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05), clip_grad=dict(max_norm=1.0),
                 paramwise_cfg=dict(norm_decay_mult=0.0))
KD = dict(type='KLDivergence', name='kd')


def members(zoo):
    pair = dict(student=zoo.mixer(), teacher=zoo.resnet(), teacher_ckpt='init', input_size=64)
    return dict(alone=zoo.mixer(), sfkd=dict(type='SFKD', **pair),
                deepest=dict(type='SFKD', stages=[-1], refine=True, anchor=dict(share=0.1), **pair),
                kd=dict(type='Distiller', pairs=[], logits=[KD], **pair))


def seeded_build(config):
    torch.manual_seed(3)
    model = build_model(copy.deepcopy(config), 'test')
    model.init_weights()
    return model.train()


@pytest.fixture
def cohort(zoo):
    torch.manual_seed(3)
    cohort = Cohort(members(zoo))
    cohort.init_weights()
    return cohort.train()


@pytest.fixture
def optimizers(cohort):
    return build_optim_wrapper(cohort, dict(constructor='CohortOptimizers', each=OPTIMIZER))


def test_each_student_is_that_of_a_run_alone(zoo, cohort, optimizers):
    """Weights, batch statistics and connectors, to the last bit, after three steps."""
    for step in range(3):
        log = cohort.train_step(zoo.batch(seed=step), optimizers)
    for (name, config), member in zip(members(zoo).items(), cohort.members):
        single = seeded_build(config)
        optimizer = build_optim_wrapper(single, copy.deepcopy(OPTIMIZER))
        for step in range(3):
            expected = single.train_step(zoo.batch(seed=step), optimizer)
        for key, value in single.state_dict().items():
            assert torch.equal(member.state_dict()[key], value), (name, key)
        assert {key: value.item() for key, value in expected.items()} == {
            key.removeprefix(f'{name}.'): value.item() for key, value in log.items() if key.startswith(f'{name}.')}


def test_what_follows_sees_the_random_numbers_of_a_run_alone(zoo, cohort):
    state = randomness.get_state()
    seeded_build(members(zoo)['sfkd'])
    assert torch.equal(state['torch'], torch.get_rng_state())


def test_the_teacher_runs_once_a_step_and_there_is_one(zoo, cohort, optimizers, monkeypatch):
    distillers = cohort.members[1:]
    assert {id(distiller.distillation.teacher) for distiller in distillers} == {id(cohort.one_pass)}
    runs, first = [], cohort.one_pass.teacher.network.backbone.conv1
    monkeypatch.setattr(first, '_conv_forward', lambda *args, own=first._conv_forward: runs.append(1) or own(*args))
    for step in range(2):
        cohort.train_step(zoo.batch(seed=step), optimizers)
    assert len(runs) == 2  # what follows the anchor's map runs again, nothing before it
    rest = cohort.one_pass.rest
    assert rest.returned is None and not rest._recorded  # no batch's features are kept beyond its step


def test_anchors_at_two_places_are_refused(zoo):
    pair = dict(type='SFKD', student=zoo.mixer(), teacher=zoo.resnet(), teacher_ckpt='init', input_size=64)
    with pytest.raises(ConfigError, match='their anchors are at 2 places of the teacher'):
        Cohort({str(stage): dict(pair, stages=[stage], anchor=dict(weight=1.0)) for stage in (0, 1)})


def test_who_fails_drops_out_and_the_others_go_on(zoo, cohort, optimizers, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError('out of chalk')
    monkeypatch.setattr(cohort.members[1].distillation.pairs[0], 'connect', fail)
    before = copy.deepcopy(cohort.state_dict())
    with torch.no_grad():
        cohort.members[3].student.head.fc.bias.fill_(torch.nan)
    for step in range(2):
        log = cohort.train_step(zoo.batch(seed=step), optimizers)
    assert set(cohort.dropped) == {'sfkd', 'kd'}
    assert 'out of chalk' in cohort.dropped['sfkd'] and 'step 1' in cohort.dropped['kd']
    assert 'nan' in cohort.dropped['kd']
    assert not any(value.isnan().any() for value in cohort.state_dict().values())  # it can be saved and read
    assert {key.partition('.')[0] for key in log} == {'alone', 'deepest'}
    changed = {int(key.split('.')[1]) for key, value in cohort.state_dict().items()
               if key.endswith('head.fc.weight') and not torch.equal(value, before[key])}
    assert changed == {0, 2}
    monkeypatch.setattr(type(cohort), '_step', fail)
    with pytest.raises(RuntimeError, match='every member has dropped out'):
        cohort.train_step(zoo.batch(), optimizers)


def test_a_checkpoint_between_two_looks_holds_no_nan(zoo, cohort, optimizers):
    cohort.train_step(zoo.batch(), optimizers)  # of the 50 steps between two looks at the losses
    with torch.no_grad():
        cohort.members[3].student.head.fc.bias.fill_(torch.nan)
    cohort.train_step(zoo.batch(seed=1), optimizers)
    state = cohort.state_dict()
    assert all(value.isfinite().all() for value in state.values()) and state['gone'].tolist() == [0, 0, 0, 1]
    assert set(cohort.dropped) == {'kd'} and 'that are no numbers' in cohort.dropped['kd']
    log = cohort.train_step(zoo.batch(seed=2), optimizers)
    assert {key.partition('.')[0] for key in log} == {'alone', 'sfkd', 'deepest'}


def test_who_cannot_be_built_is_left_out(zoo):
    wrong = dict(type='SFKD', student=zoo.mixer(), teacher=zoo.resnet(), teacher_ckpt='/no/such/file.pth')
    cohort = Cohort(dict(wrong=wrong, alone=zoo.mixer()))
    assert cohort.names == ['alone'] and "'/no/such/file.pth'" in cohort.dropped['wrong']
    with pytest.raises(ConfigError, match='wrong: .*no checkpoint'):
        Cohort(dict(wrong=wrong))


def test_one_pass_holds_no_batch_between_two_steps(zoo, cohort, optimizers):
    cohort.train_step(zoo.batch(), optimizers)
    assert cohort.one_pass.features == {} and cohort.one_pass.images is None


def test_one_pass_lets_go_of_a_batch_before_it_computes_the_next(zoo, cohort):
    images = cohort.data_preprocessor(zoo.batch(), True)['inputs']
    held = []
    network = cohort.one_pass.teacher.network
    hook = network.register_forward_pre_hook(lambda *_: held.append(len(cohort.one_pass.features)))
    first = dict(cohort.one_pass(images))
    cohort.one_pass(images).clear()  # as each member does
    again, other = cohort.one_pass(images), cohort.one_pass(images.clone())
    hook.remove()
    assert first and first.keys() == again.keys() == other.keys()
    assert all(again[path] is x and other[path] is not x for path, x in first.items())
    assert held == [0, 0]


@pytest.mark.parametrize('what, change', [
    ('weights', dict(teacher_ckpt='other.pth')), ('normalisation', dict(mean=(1, 2, 3))),
    ('input size', dict(teacher_input_size=96)), ('precision', dict(teacher_precision='bf16'))])
def test_a_member_of_another_teacher_drops_out_and_says_why(zoo, tmp_path, what, change):
    pair = dict(type='SFKD', student=zoo.mixer(), teacher=zoo.resnet(), teacher_ckpt=str(tmp_path / 'a.pth'),
                input_size=64)
    for seed, name in enumerate(('a', 'other')):
        torch.save(dict(state_dict=zoo.build(zoo.resnet(), seed=seed).state_dict()), tmp_path / f'{name}.pth')
    other = dict(copy.deepcopy(pair), **{key: value for key, value in change.items() if key != 'mean'})
    if 'mean' in change:
        other['teacher'] = zoo.resnet(mean=change['mean'])
    if 'teacher_ckpt' in change:
        other['teacher_ckpt'] = str(tmp_path / change['teacher_ckpt'])
    cohort = Cohort(dict(first=pair, same=copy.deepcopy(pair), other=other, alone=zoo.mixer()))
    assert cohort.names == ['first', 'same', 'alone'] and list(cohort.dropped) == ['other']
    assert f"its teacher has another {what} than that of 'first'" in cohort.dropped['other']


def test_it_predicts_as_the_member_that_is_shown(zoo, cohort):
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cohort.eval()
    cohort.members[2].student.head.fc.bias.data += 1.0
    for i, name in enumerate(cohort.names):
        cohort.shown = i
        with torch.no_grad():
            assert torch.equal(cohort(pictures)[0], cohort.student(name)(pictures)[0])
    cohort.shown = 2
    with torch.no_grad():
        assert not torch.equal(cohort(pictures)[0], cohort.student('sfkd')(pictures)[0])


def test_optimizers_have_each_members_own_weights(cohort, optimizers):
    assert isinstance(optimizers, OptimWrapperDict) and list(optimizers.keys()) == cohort.names
    for name, member in zip(cohort.names, cohort.members):
        held = {id(p) for group in optimizers[name].param_groups for p in group['params']}
        mine, all_of_them = ({id(p) for p in module.parameters()} for module in (member, cohort))
        assert held & all_of_them == mine  # mmengine adds a group of its own
    assert isinstance(CohortOptimizers(dict(each=OPTIMIZER))(cohort), OptimWrapperDict)


def test_a_copy_that_is_cast_leaves_the_one_teacher_alone(zoo, cohort, optimizers):
    copied = copy.deepcopy(cohort).double()
    assert {next(member.distillation.teacher.teacher.network.parameters()).dtype
            for member in copied.members[1:]} == {torch.float64}
    assert next(cohort.one_pass.teacher.network.parameters()).dtype == torch.float32
    assert cohort.train_step(zoo.batch(), optimizers) and not cohort.dropped
