"""Each benchmark runs on something tiny and writes the rows that programs read. No time is asserted."""
import importlib.util
import json
import math

import pytest

STEP = {'pair', 'image', 'batch', 'teacher_precision', 'channels_last', 'step_over_floor', 'mmrazor_over_ours',
        'spread'}
MINI = ('--config', 'configs/mini/cls_resnet_to_mixer.py')
TINY = ('--pairs', 'cls', *MINI, '--image', '64', '64', '--batch', '2', '--repeats', '1')


@pytest.fixture
def rows(tool, tmp_path):
    def run(script, *arguments):
        tool(f'tools/benchmarks/{script}.py', *arguments, '--json', tmp_path / 'rows.json')
        return json.loads((tmp_path / 'rows.json').read_text())
    return run


def positive(row, *keys):
    return all(math.isfinite(row[key]) and row[key] > 0 for key in keys)


def test_operations(rows):
    found = rows('bench_ops', '--shapes', '2,3,9,12', '--repeats', '1')
    with_ptwt = [('dwt', 'ptwt')] if importlib.util.find_spec('ptwt') else []
    assert {(row['op'], row['versus']) for row in found} == {('dwt', 'pytorch_wavelets'), ('gffl', 'torch.fft'),
                                                             ('depthwise', 'F.conv2d'),
                                                             ('pooling', 'F.adaptive_avg_pool2d'),
                                                             ('standardisation', 'F.batch_norm'), *with_ptwt}
    assert len(found) == 7 + 2 * len(with_ptwt) and {row['dtype'] for row in found} == {'float32', 'autocast'}
    for row in found:
        assert set(row) == {'op', 'shape', 'dtype', 'versus', 'ratio', 'spread', 'error'}
        assert row['shape'] == [2, 3, 9, 12]
        assert positive(row, 'ratio') and 0 <= row['error'] < 1e-5


def test_steps(rows):
    row, = rows('bench_step', *TINY, '--channels-last')
    assert set(row) == STEP and (row['pair'], row['image'], row['batch']) == ('cls', '64x64', 2)
    assert row['channels_last']
    assert positive(row, 'step_over_floor', 'mmrazor_over_ours')


def test_memory(rows):
    row, = rows('bench_memory', *TINY)
    assert set(row) == {'pair', 'peak_over_floor'} and positive(row, 'peak_over_floor')


def test_scale(rows):
    found = rows('bench_scale', *MINI, '--series', 'levels', 'processes', '--processes', '2', '--size', '64',
                 '--repeats', '1')
    assert [row['value'] for row in found] == ['1 by bands', '2 by bands', '3 by bands', '2']
    assert all(positive(row, 'student_ms', 'teacher_ms', 'sfkd_ms', 'step_over_floor') for row in found)


def test_values_on_a_device(rows):
    found = rows('check_values')
    assert len(found) == 84 and all(row['error'] <= row['bound'] for row in found)


def test_steps_in_mixed_precision(rows):
    found = rows('check_steps', '--configs', 'cls_resnet_to_mixer')
    assert [row['dtype'] for row in found] == ['float32', 'bfloat16']
    assert found[0]['difference'] == 0 < found[1]['difference'] < 0.05 and all(row['gradients_finite'] for row in found)


def test_a_teacher_by_precision(rows):
    row, = rows('bench_teacher', '--models', 'shufflenet-v2-1x_16xb64_in1k', '--image', '64', '--batch', '2',
                '--repeats', '1')
    assert len(row) >= 3 and all(value > 0 for key, value in row.items() if key != 'model')


def test_activations(rows):
    found = rows('bench_activations', '--repeats', '1')
    assert len(found) == 6 and all(float(row['PyTorch / table'].split()[0]) > 0 for row in found)
