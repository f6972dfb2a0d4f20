"""Checkpoints: what is wrong with one is said, nothing of them is lost, nothing is half written."""
import argparse
import os
import pickle
import re

import mmengine
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sfkd.checkpoint import (
    CONVERT,
    check_fit,
    load_strictly,
    load_weights,
    read_checkpoint,
    stock_checkpoint,
    stock_weights,
    weights_of,
    write_checkpoint,
)
from sfkd.errors import ConfigError

# ---- reading ----

@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_weights_that_are_no_numbers_are_named(tmp_path, suffix):
    shared = torch.arange(8.)
    shared[5] = torch.nan
    write_checkpoint(dict(state_dict=dict(a=shared[:4], b=torch.ones(3), c=shared[4:], d=shared)),
                     tmp_path / f'a{suffix}')
    with pytest.raises(ConfigError, match=rf"here: .*a{suffix}. has values in 'c' that are no numbers"):
        read_checkpoint(str(tmp_path / f'a{suffix}'), 'here')


def test_what_was_learned_may_not_be_infinite_but_a_mask_may(tmp_path):
    network = nn.BatchNorm1d(2)
    network.register_buffer('mask', torch.tensor([0., -torch.inf]))
    write_checkpoint(dict(state_dict=network.state_dict()), tmp_path / 'a.pth')
    assert load_weights(network, str(tmp_path / 'a.pth'), 'here').not_loaded == []
    for name in ('weight', 'running_var'):
        changed = {key: value.clone() for key, value in network.state_dict().items()}
        changed[name][1] = torch.inf
        write_checkpoint(dict(state_dict=changed), tmp_path / 'b.pth')
        for load in (lambda: load_weights(network, str(tmp_path / 'b.pth'), 'here'),
                     lambda: load_strictly(network, str(tmp_path / 'b.pth'))):
            with pytest.raises(ConfigError, match=f"has infinite values in '{name}'"):
                load()


def test_a_resume_needs_every_weight(tmp_path):
    network = nn.Linear(2, 3)
    check_fit(network, dict(state_dict=network.state_dict()), 'a.pth', 'here')
    for weights, message in ((dict(weight=torch.ones(3, 2)), "1 weights differ, such as 'bias' .in the file none"),
                             (dict(weight=torch.ones(3, 1), bias=torch.ones(3)), 'file .3, 1., in the model .3, 2.'),
                             (dict(network.state_dict(), x=torch.ones(1)), "'x' .in the file .1,., in the model none")):
        with pytest.raises(ConfigError, match=message):
            check_fit(network, dict(state_dict=weights), 'a.pth', 'here')


@pytest.mark.parametrize('content', [b'', b'not a checkpoint', b'PK\x03\x04 cut off', pickle.dumps({'a': 1}, 2)[:5]])
@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf'here: .*{name}. is damaged or no checkpoint \({len(content)} bytes'):
        read_checkpoint(str(tmp_path / name), 'here')


@pytest.mark.parametrize('content', [[1, 2], torch.zeros(2), None])
def test_a_file_that_holds_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(ConfigError, match='here: .*a.pth'):
        load_weights(nn.Linear(1, 1), str(tmp_path / 'a.pth'), 'here')


def test_missing_files_and_unknown_addresses():
    with pytest.raises(ConfigError, match="here: there is no checkpoint 'nowhere/a.pth'"):
        read_checkpoint('nowhere/a.pth', 'here')
    with pytest.raises(ConfigError, match="here: 'open-mmlab://nothing' is none of mmengine's"):
        read_checkpoint('open-mmlab://nothing', 'here')


# ---- loading ----


@pytest.mark.parametrize('wrap', [
    dict, lambda w: dict(state_dict=w, meta={}), lambda w: dict(model=w, epoch=3),
    lambda w: dict(state_dict={f'module.{key}': value
                               for key, value in w.items()}, epoch=3)
])
def test_weights_are_found_inside(wrap):
    weights = {'a': torch.ones(1), 'b.c': torch.zeros(2)}
    found = weights_of(wrap(weights))
    assert found.keys() == weights.keys() and all(found[key] is weights[key] for key in weights)


@pytest.mark.parametrize('key', ['model_state_dict', 'net', 'ema', 'model_ema', 'state_dict_ema'])
def test_weights_are_found_where_other_programs_put_them(tmp_path, key):
    given, network = with_batch_norm().state_dict(), with_batch_norm(1)
    others = dict(epoch=2.5, model=dict(depth=3), optimizer=None, meta='text', args=argparse.Namespace(lr=0.1))
    torch.save({**others, key: given}, tmp_path / 'a.pth')
    assert load_weights(network, str(tmp_path / 'a.pth'), 'test').not_loaded == []
    assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())
    torch.save({**others, key: with_batch_norm(2).state_dict(), 'model': given}, tmp_path / 'b.pth')
    load_strictly(network, str(tmp_path / 'b.pth'))  # the trained ones come before an average of them
    assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


def test_what_another_program_keeps_beside_the_weights_is_left_out(tmp_path):
    torch.save(dict(state_dict=dict(a=torch.ones(1)), optimizer=[{}], message_hub=3, meta=dict(epoch=3.5, iter=7)),
               tmp_path / 'a.pth')
    found = read_checkpoint(str(tmp_path / 'a.pth'), 'test')
    assert found == dict(state_dict=found['state_dict'], meta=dict(iter=7))


@pytest.mark.parametrize('wrap', [lambda network: network, lambda network: dict(model=network, epoch=3),
                                  lambda network: dict(model_state_dict=network.state_dict(), code=re.RegexFlag),
                                  lambda network: dict(network.state_dict())])
def test_the_command_that_converts_a_checkpoint(tmp_path, monkeypatch, wrap):
    network = with_batch_norm()
    torch.save(wrap(network), tmp_path / 'IN.pth')
    monkeypatch.chdir(tmp_path)
    exec(re.search('python -c "(.*)"$', CONVERT)[1], {})
    load_strictly(with_batch_norm(1), str(tmp_path / 'OUT.pth'))


def test_a_file_without_weights_says_what_it_has(tmp_path):
    torch.save(dict(epoch=3, weights=dict(a=torch.ones(1))), tmp_path / 'a.pth')
    for load in (lambda file: load_weights(nn.Linear(1, 1), file, 'here'),
                 lambda file: load_strictly(nn.Linear(1, 1), file)):
        with pytest.raises(ConfigError, match="a.pth. holds no weights: its keys are 'epoch', 'weights'. Give"):
            load(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('kind', [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_weights_of_few_bits_load(tmp_path, kind):
    network = nn.Linear(2, 1, bias=False)
    torch.save(dict(weight=torch.tensor([[0.5, -2.]]).to(kind)), tmp_path / 'a.pth')
    assert load_weights(network, str(tmp_path / 'a.pth'), 'test').loaded == 1
    assert network.weight.tolist() == [[0.5, -2.]] and network.weight.dtype == torch.float32
    for value in [torch.nan, torch.inf][:1 if kind == torch.float8_e4m3fn else 2]:  # which has no infinity
        torch.save(dict(weight=torch.tensor([[0.5, value]]).to(kind)), tmp_path / 'b.pth')
        with pytest.raises(ConfigError, match='has values in .weight. that are no numbers|has infinite values'):
            load_weights(network, str(tmp_path / 'b.pth'), 'test')


def test_a_partial_load_says_what_it_left(tmp_path):
    def network(width=4):
        torch.manual_seed(width)
        return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1), nn.Linear(2, 2))
    file, target, before = network(), network(), network().state_dict()
    weights = dict(file.state_dict(), extra=torch.ones(1))
    weights = {key: value + 1 for key, value in weights.items() if key not in ('3.bias', '1.num_batches_tracked')}
    weights['2.weight'] = torch.ones(5, 4, 1, 1)
    torch.save(weights, tmp_path / 'a.pth')
    report = load_weights(target, str(tmp_path / 'a.pth'), 'test')
    assert (report.loaded, sorted(report.not_loaded), report.unused, report.example) == (8, ['2.weight', '3.bias'],
                                                                                         ['extra'], '0.weight')
    assert '[5, 4, 1, 1]' in report.why('2.weight') and '[2, 4, 1, 1]' in report.why('2.weight') and report.why(
        '3.bias') == ''
    for key, value in target.state_dict().items():
        assert torch.equal(value,
                           before[key] if key in ('2.weight', '3.bias', '1.num_batches_tracked') else weights[key]), key


def with_batch_norm(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))


def test_a_file_of_which_nothing_fits_has_loaded_nothing(tmp_path):
    weights = {f'stem.{key}': value for key, value in with_batch_norm().state_dict().items() if key != '0.bias'}
    torch.save(weights, tmp_path / 'a.pth')
    network = with_batch_norm(1)
    report = load_weights(network, str(tmp_path / 'a.pth'), 'test')
    assert (report.loaded, report.example, report.not_loaded[0]) == (0, 'stem.0.weight', '0.weight')
    assert len(report.not_loaded) == 10 and len(report.unused) == 9  # both without the counts of batches


class Wrapped(nn.Module):
    """A network whose own attribute is called as DDP's is."""

    def __init__(self, inner):
        super().__init__()
        self.module = inner


@pytest.mark.parametrize('rename', ['{}', 'module.{}', '_orig_mod.{}', 'module._orig_mod.{}', '_orig_mod.module.{}',
                                    'model.{}', 'student._orig_mod.{}'])
@pytest.mark.parametrize('wrap', [lambda network: network, Wrapped, torch.compile])
def test_names_that_wrappers_have_changed(tmp_path, rename, wrap):
    given, network = with_batch_norm().state_dict(), with_batch_norm(1)
    weights = {rename.format(key): value for key, value in given.items()}
    if rename.startswith(('model.', 'student.')):  # as Lightning saves them
        weights['criterion.weight'] = torch.ones(2)
    torch.save(dict(state_dict=weights, epoch=1), tmp_path / 'a.pth')
    report = load_weights(wrap(network), str(tmp_path / 'a.pth'), 'test')
    assert (report.loaded, report.not_loaded) == (12, [])
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())


def test_names_below_two_attributes_that_would_both_fit_are_not_guessed(tmp_path):
    torch.save({f'{side}.{key}': value for side in ('student', 'teacher')
                for key, value in with_batch_norm().state_dict().items()}, tmp_path / 'a.pth')
    assert load_weights(with_batch_norm(1), str(tmp_path / 'a.pth'), 'test').loaded == 0


# ---- the student alone ----

@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_stock_model_loads_the_student_strictly(zoo, tmp_path, suffix):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet()).eval()
    full = dict(meta=dict(epoch=2, iter=7, dataset_meta=dict(classes=['a']), cfg='secret', seed=1),
                state_dict=distiller.state_dict(), optimizer={}, message_hub={})
    alone = stock_checkpoint(full)
    assert alone.keys() == {'meta', 'state_dict'}
    assert alone['meta'] == dict(epoch=2, iter=7, dataset_meta=dict(classes=['a']),
                                 mmengine_version=mmengine.__version__)
    path = tmp_path / 'new folder' / f'student{suffix}'
    write_checkpoint(alone, path)
    stock = zoo.build(zoo.mixer(), seed=9).eval()
    stock.load_state_dict(weights_of(read_checkpoint(str(path), 'test')), strict=True)
    inputs = torch.randn(2, 3, 64, 64)
    assert torch.equal(stock(inputs), distiller.student(inputs))
    assert path.stat().st_mode & 0o777 == 0o644
    assert load_weights(zoo.build(zoo.mixer()), str(path), 'test').not_loaded == []


def test_a_stock_checkpoint_stays_what_it_is(zoo):
    weights = zoo.build(zoo.resnet()).state_dict()
    found = stock_weights(dict(state_dict=weights))
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)


# ---- writing ----

def test_shared_and_strided_weights_are_written_whole(tmp_path):
    """Heads that share a layer (DETR and its kin) have one tensor under two names."""
    shared = torch.arange(6.).view(2, 3)
    weights = dict(a=shared, b=shared, c=shared.T, d=shared[:, 1])
    for suffix in ('.pth', '.safetensors'):
        write_checkpoint(dict(state_dict=weights), tmp_path / f'a{suffix}')
        found = weights_of(read_checkpoint(str(tmp_path / f'a{suffix}'), 'test'))
        assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix, error):
    path = tmp_path / f'a{suffix}'
    write_checkpoint(dict(state_dict=dict(a=torch.ones(2))), path)
    old = path.read_bytes()

    def interrupted(*args):
        raise error
    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(ConfigError if error is OSError else error, match='cannot write|^$'):
        write_checkpoint(dict(state_dict=dict(a=torch.zeros(2))), path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == [path.name]


def test_a_failure_half_way_through_the_writing(tmp_path):
    path = tmp_path / 'a.pth'
    write_checkpoint(dict(state_dict=dict(a=torch.ones(2))), path)
    old = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        write_checkpoint(dict(state_dict=dict(a=torch.zeros(2)), x=lambda: 0), path)
    assert path.read_bytes() == old and os.listdir(tmp_path) == ['a.pth']
    write_checkpoint(dict(state_dict=dict(a=torch.zeros(2))), path)
    assert torch.equal(read_checkpoint(str(path), 'test')['state_dict']['a'], torch.zeros(2))


def test_a_networks_own_names_are_written(tmp_path):
    weights = Wrapped(nn.Linear(1, 2)).state_dict()
    for suffix in ('.pth', '.safetensors'):
        write_checkpoint(dict(state_dict=weights), tmp_path / f'a{suffix}')
        assert load_weights(Wrapped(nn.Linear(1, 2)), str(tmp_path / f'a{suffix}'), 'test').not_loaded == []
    assert load_file(tmp_path / 'a.safetensors').keys() == {'module.weight', 'module.bias'}


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match='must end in .pth or .safetensors'):
        write_checkpoint({}, tmp_path / 'a.onnx')
    assert os.listdir(tmp_path) == []


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder and the address under which it is served on this machine; downloads go to a hub folder of the test's
    own.
    """
    import functools
    import http.server
    import threading
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'www').mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'www')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / 'www', f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_an_address_is_downloaded_once_and_its_digest_checked(served):
    import hashlib
    folder, address = served
    torch.save(dict(state_dict=dict(a=torch.ones(2))), folder / 'plain.pth')
    digest = hashlib.sha256((folder / 'plain.pth').read_bytes()).hexdigest()
    (folder / f'model-{digest[:8]}.pth').write_bytes((folder / 'plain.pth').read_bytes())
    (folder / 'model-00000000.pth').write_bytes((folder / 'plain.pth').read_bytes())
    for name in ('plain.pth', f'model-{digest[:8]}.pth'):
        assert torch.equal(read_checkpoint(f'{address}/{name}', 'x')['state_dict']['a'], torch.ones(2))
    (folder / 'plain.pth').unlink()
    assert read_checkpoint(f'{address}/plain.pth', 'x')  # from the hub folder
    for name in ('model-00000000.pth', 'absent.pth'):
        with pytest.raises(ConfigError, match=f'x: cannot download .*{name}'):
            read_checkpoint(f'{address}/{name}', 'x')
