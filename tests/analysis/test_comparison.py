"""The arithmetic of a comparison's tables and picture."""
import re

import pytest

from sfkd.analysis.comparison import draw_gains, label, parts, ranks, table, title
from sfkd.analysis.intervals import interval
from sfkd.errors import ConfigError


def rows(method, values, pair='resnet_to_mixer'):
    return [dict(task='cls', pair=pair, method=method, seed=seed, metric='accuracy/top1', value=value)
            for seed, value in values.items()]


def test_interval_is_students_t():
    assert interval([1., 2., 3.]) == ' +2.00 ± 2.48'  # 4.303 * 1 / sqrt(3)
    assert interval([-1.5]) == ' -1.50'
    assert interval([0., 2.] * 8) == ' +1.00 ± 0.55'  # 2.131 * sqrt(16 / 15) / 4


def test_differences_are_paired_by_seed():
    text = table(rows('alone', {0: 10., 1: 20., 2: 99.}) + rows('sfkd', {1: 23., 0: 11.}), ['alone'])
    sfkd = next(line for line in text.splitlines() if '| sfkd |' in line)
    assert '17.00 ± 8.49' in sfkd and '+2.00 ± 12.71' in sfkd  # (11 - 10, 23 - 20); seed 2 has no partner


def test_ranks_are_of_the_methods_that_every_pair_has():
    measured = [row for pair, values in dict(a=(1., 3., 2.), b=(5., 4., 6.)).items()
                for method, value in zip(('alone', 'kd', 'sfkd'), values) for row in rows(method, {0: value}, pair)]
    text = ranks(measured + rows('cwd', {0: 9.}, 'a'))
    # sfkd - alone: 2 - 1, 6 - 5; sfkd - kd: 2 - 3, 6 - 4
    assert [line.rpartition('(')[2] for line in text.splitlines()[2:]] == [
        '1) | 1.50 |  |', '3) | 2.00 |  +0.50 ± 19.06 |', '2) | 2.50 |  +1.00 ± 0.00 |']
    assert '| mean rank | the first minus it, 2 runs |' in text
    assert '| kd | 3.00 (1) | 4.00 (3) | 2.00 |' in text and '| sfkd | 2.00 (2) | 6.00 (1) | 1.50 |' in text
    assert 'cwd' not in text
    tied = [row for i in range(9) for pair, value in dict(a=i, b=-i).items()
            for row in rows(f'm{i}', {0: value}, pair)]
    assert re.findall(r'm\d', ranks(tied)) == [f'm{i}' for i in range(9)]  # equal ranks go by name


def test_methods_that_are_level_share_a_rank():
    text = ranks([row for method, value in dict(a=3., b=5., c=3., d=1.).items() for row in rows(method, {0: value})])
    assert [line.rpartition('(')[2] for line in text.splitlines()[2:]] == [
        '1) | 1.00 |  |', '2.5) | 2.50 |  +2.00 |', '2.5) | 2.50 |  +2.00 |', '4) | 4.00 |  +4.00 |']


def test_ranks_are_of_the_seeds_that_all_methods_have():
    measured = rows('kd', {0: 60., 1: 60., 2: 40.}) + rows('sfkd', {0: 59., 1: 59.})
    text = ranks(measured)
    assert '| kd | 60.00 ± 0.00 (1) | 1.00 |' in text and '| sfkd | 59.00 ± 0.00 (2) | 2.00 |' in text
    assert text.endswith('Ranked by the seeds that all of them have: resnet_to_mixer: seeds 0 1.')
    assert 'Ranked' not in ranks(measured[:2] + measured[3:])
    assert ranks(rows('kd', {0: 1.}) + rows('sfkd', {1: 1.})) == (
        'No ranks: on resnet_to_mixer the methods have no seed in common.')


def test_parts_are_differences_on_each_pair_and_over_all_runs():
    measured = [*rows('sfkd', {0: 13., 1: 13.}, 'a'), *rows('lean', {0: 10., 1: 12.}, 'a'), *rows('mse', {1: 9.}, 'a'),
                *rows('sfkd', {0: 8.}, 'b'), *rows('lean', {0: 5., 2: 1.}, 'b')]
    text = parts(measured, dict(DS2S=('sfkd', 'lean'), GFFL=('lean', 'mse'), DWT=('sfkd', 'without')))
    # 13 - 10, 13 - 12; 8 - 5; 12 - 9
    assert '| DS2S |  +2.00 ± 12.71 (2) |  +3.00 (1) |  +2.33 ± 2.87 (3) |' in text
    assert '| GFFL |  +3.00 (1) |  |  +3.00 (1) |' in text and 'DWT' not in text
    assert parts(measured, dict(DWT=('sfkd', 'without'))) == ''


@pytest.mark.parametrize('method, expected', [
    ('sfkd+spatial_weight=0.625+frequency_weight=0.625+levels=0', 'sfkd 0.625, 0.625, levels=0'),
    ('cwd+losses.0.weight=5+logits.0.weight=1.0', 'cwd 5, logits 1'),
    ('sfkd_lean+sigma=1.0+logit_weight=1.0', 'sfkd_lean sigma=1.0, logits 1'), ('ofa', 'ofa'),
    ('sfkd+logit_weight=5.0+logit_loss=ChannelWiseDivergence', 'sfkd logits 5, CWD'),
    ('kd+logits.0.type=DKD', 'kd DKD'),
    ('pkd+losses.0.weight=3+logits.0.weight=5.0+logits.0.type=ChannelWiseDivergence+logits.0.temperature=1.0',
     'pkd 3, logits 5, CWD, temperature=1.0')])
def test_the_picture_names_a_method_by_its_weights(method, expected):
    assert label(method) == expected


@pytest.mark.parametrize('pair, task, expected', [
    ('pretrained_seg_mit_to_resnet8', 'seg_pretrained', 'mit to resnet8'), ('resnet_to_vit', 'cls', 'resnet to vit'),
    ('det_swin_to_resnet8', 'det', 'swin to resnet8'), ('det', 'det', 'det')])
def test_the_picture_names_a_pair_without_its_task(pair, task, expected):
    assert title(pair, task) == expected


def test_the_picture_is_of_gains_paired_by_seed(tmp_path, monkeypatch):
    from matplotlib.figure import Figure
    drawn = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: drawn.append(figure))
    measured = [*rows('alone', {0: 10., 1: 20.}, 'resnet_to_mixer'), *rows('kd', {1: 19.}, 'resnet_to_mixer'),
                *rows('sfkd', {1: 23., 0: 11., 2: 99.}, 'resnet_to_mixer'),
                *rows('alone', {0: 5.}, 'resnet_to_vit'), *rows('sfkd', {0: 9.}, 'resnet_to_vit')]
    draw_gains(measured, tmp_path / 'plot.png')
    mixer, vit = drawn[0].axes
    assert [tick.get_text() for tick in mixer.get_yticklabels()] == ['kd', 'sfkd']  # the best on top
    assert [list(line.get_xdata()) for line in mixer.lines[1:]] == [[-1.], [-1.], [3., 1.], [2.]]
    assert [list(line.get_xdata()) for line in vit.lines[1:]] == [[4.], [4.]]
    with pytest.raises(ConfigError, match='add alone to --methods'):
        draw_gains(rows('sfkd', {0: 9.}), tmp_path / 'plot.png')
