"""Mistakes in a distillation's options, of every kind and at random together: one message each, and no traceback."""
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfkd import SFKD, Distiller
from sfkd.distillation.options import problems_of
from sfkd.errors import ConfigError

SUITE = settings(deadline=None, database=None, derandomize='EXAMPLES' not in os.environ,
                 max_examples=int(os.environ.get('EXAMPLES', 40)))
RIGHT = dict(student='backbone.layers.3', teacher='backbone.layer4')
LOSS = dict(type='FeatureMSE')
#: Options, and a part of what is said of them.
MISTAKES = [
    (dict(pairs=3), "pairs: 3 is neither 'auto', 'head', 'classes' nor a list"),
    (dict(pairs=dict(RIGHT)), "pairs: {'student': .* is neither 'auto', 'head', 'classes' nor a list"),
    (dict(pairs='autoo'), "pairs: 'autoo' is neither"), (dict(pairs=[None]), r'pairs\[0\]: None is neither'),
    (dict(pairs=[dict(RIGHT, student=3)]), r'pairs\[0\].student: 3 is no path of a module'),
    (dict(pairs=[dict(RIGHT, loses=[])]), r"pairs\[0\]: no option 'loses'; nearest: 'losses'"),
    (dict(pairs=[dict(RIGHT, losses=3)]), r'pairs\[0\].losses: 3 is no list of losses'),
    (dict(pairs=[dict(RIGHT, losses=[3])]), r"pairs\[0\].losses\[0\]: 3 is no dict with a 'type'"),
    (dict(pairs=[dict(RIGHT, connector='Align')]), r"pairs\[0\].connector: 'Align' is no dict with a 'type'"),
    (dict(losses=LOSS), 'losses: .* is no list of losses'), (dict(losses=[{}]), r"losses\[0\]: {} is no dict"),
    (dict(losses=[dict(LOSS, weight='x')]), r"losses\[0\].weight: 'x' is no number from 0"),
    (dict(losses=[dict(LOSS, weight=float('nan'))]), r'losses\[0\].weight: nan'),
    (dict(losses=[dict(LOSS, weight=-1)]), r'losses\[0\].weight: -1'),
    (dict(losses=[dict(LOSS, name='a.b')]), r"losses\[0\].name: 'a.b' is no text without dots"),
    (dict(losses=[dict(LOSS, name='type')]), r"losses\[0\].name: 'type' is what torch calls a part of its own"),
    (dict(losses=[dict(type='FeatureMSEE')]), r"losses: cannot build 'FeatureMSEE'"),
    (dict(losses=[dict(type='ChannelWiseDivergence', temperature=0)]), 'temperature must be a number above 0, not 0'),
    (dict(losses=[dict(type='GaussianFrequencyLoss', sigma=-1)]), 'sigma must be a number above 0, not -1'),
    (dict(logits=[dict(type='KLDivergence', temperature='x')]), "temperature must be a number above 0, not 'x'"),
    (dict(logits=dict(type='KLDivergence')), 'logits: .* is no list of losses'),
    (dict(connector=3), "connector: 3 is no dict with a 'type'"),
    (dict(connector=dict(type='WaveletConnector', levels=-1)), 'levels must be a whole number from 0, not -1'),
    (dict(connector=dict(type='WaveletConnector', wavelet='haarr')), "unknown wavelet 'haarr', nearest: 'haar'"),
    (dict(stages='x'), "stages: 'x' is no list of indices"), (dict(stages=[1.5]), r'stages: \[1.5\] is no list'),
    (dict(input_size=(64, 64, 3)), r'input_size: \(64, 64, 3\) is neither a number of pixels nor \(height, width\)'),
    (dict(teacher_input_size='x'), 'teacher_input_size: .* is neither'),
    (dict(teacher_precision='half'), "model.teacher_precision: 'half' is none of 'auto', 'fp32', 'bf16', 'fp16'"),
]


@pytest.mark.parametrize('options, message', MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_message_by_its_key(zoo, options, message):
    right = dict(pairs=[RIGHT], losses=[LOSS], connector=dict(type='Align'), input_size=64)
    Distiller(zoo.mixer(), zoo.resnet(), 'init', **right)
    with pytest.raises(ConfigError, match=message) as error:
        Distiller(zoo.mixer(), zoo.resnet(), 'init', **dict(right, **options))
    assert len(error.value.problems) == 1 and error.value.problems[0].startswith('model.')


@pytest.mark.parametrize('options', [dict(levels=-1), dict(levels=0, refine='low'), dict(wavelet='x'), dict(sigma=0),
                                     dict(refine='x'), dict(spatial_weight='x'), dict(frequency_weight=-1)])
def test_mistakes_in_the_methods_own_options(zoo, options):
    with pytest.raises(ConfigError):
        SFKD(zoo.mixer(), zoo.resnet(), 'init', input_size=64, **options)


@SUITE
@given(st.lists(st.sampled_from(['right', 'student', 'teacher', 'both', 'no map']), min_size=1, max_size=4),
       st.booleans(), st.booleans())
def test_several_mistakes_come_together_whatever_they_are(zoo, kinds, no_checkpoint, other_classes):
    entries, expected = [], set()
    for i, kind in enumerate(kinds):
        entry = dict(RIGHT)
        if kind in ('student', 'both'):
            entry['student'] = 'backbone.nothing'
            expected.add(f'model.pairs[{i}].student')
        if kind in ('teacher', 'both'):
            entry['teacher'] = 'backbone.nothing'
            expected.add(f'model.pairs[{i}].teacher')
        if kind == 'no map':
            entry['student'] = 'neck'
            expected.add(f'model.pairs[{i}].student')
        entries.append(entry)
    if no_checkpoint:
        expected.add('model.teacher_ckpt')
    options = dict(pairs=entries, losses=[LOSS], connector=dict(type='Align'), input_size=64)
    if other_classes:
        options['logits'] = [dict(type='KLDivergence')]
        expected.add('model.logits')
    def build():
        return Distiller(zoo.mixer(), zoo.resnet(classes=7 if other_classes else 5),
                         'nowhere.pth' if no_checkpoint else 'init', **options)
    if not expected:
        assert len(build().distillation.pairs) == len(kinds)
        return
    with pytest.raises(ConfigError) as error:
        build()
    assert {problem.partition(': ')[0] for problem in error.value.problems} == expected
    assert len(error.value.problems) == len(expected)


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
                        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                            st.sampled_from(['type', 'weight', 'name', 'student', 'teacher', 'losses', 'x']), inner,
                            max_size=3), max_leaves=8)


@settings(SUITE, max_examples=300)
@given(anything, anything, anything, anything, anything, anything)
def test_of_anything_at_all_it_is_said_what_is_wrong(pairs, connector, losses, logits, stages, size):
    found = problems_of(pairs, connector, losses, logits, stages, input_size=size)
    assert all(isinstance(problem, str) and ': ' in problem for problem in found)
    assert len(found) == len(set(found))


@pytest.mark.parametrize('options, message', [
    (dict(refinee=True), "model.refinee: no option of SFKD; nearest: 'refine'"),
    (dict(teacher_ckpt=3), "model.teacher_ckpt: 3 is no file, address or 'init'"),
    (dict(student_options=3), 'model.student_options: 3 is no dict of changes to the model'),
    (dict(input_size=1.5), 'model.input_size: (1.5, 1.5) is neither a number of pixels'),
], ids=str)
def test_mistakes_in_what_the_model_itself_takes(zoo, options, message):
    with pytest.raises(ConfigError) as caught:
        SFKD(zoo.mixer(), zoo.resnet(), **dict(dict(teacher_ckpt='init', input_size=64), **options))
    assert message in str(caught.value)
