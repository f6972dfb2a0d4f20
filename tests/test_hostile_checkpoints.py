"""The corpus of tools/stress: all of it through the one reader, a slice of it through the tools."""
import importlib
import json
import pickle
import random
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from sfkd.checkpoint import read_checkpoint
from sfkd.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
#: Files that are whole, or become so as their odd parts are not taken; the reader does not know which weights a model
#: needs.
FIT = ('wider network', 'all keys', 'one key renamed', 'no weights', 'nothing in it', 'texts for weights',
       'infinite', 'numpy: a field outside', 'numpy: a tensor of it', 'bomb: a memo slot far away',
       'safetensors: a huge empty tensor')

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='memory is bounded on Linux')


@pytest.fixture(scope='module')
def stress():
    """Its modules, which as scripts import each other by their names alone."""
    names = 'formats', 'corpus', 'doors'
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'tools/stress')
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope='module')
def cases(stress, zoo, tmp_path_factory):
    network = zoo.build(zoo.resnet())
    hub = MessageHub('hostile')
    hub.update_scalar('train/loss', 1.0)
    optimizer = torch.optim.AdamW(network.parameters())
    checkpoint = dict(meta=dict(epoch=1, iter=3, cfg='a = 1'), state_dict=network.state_dict(),
                      optimizer=optimizer.state_dict(), message_hub=hub.state_dict(), param_schedulers=[{}])
    folder = tmp_path_factory.mktemp('hostile')
    wide = {key: torch.cat([value, value]) if value.dim() else value for key, value in network.state_dict().items()}
    return folder, stress.corpus.corpus(folder, checkpoint, wide, random.Random(0))


def test_the_corpus_is_as_large_as_promised(stress, cases, tmp_path):
    cached = stress.doors.CacheDoor(tmp_path).cases(random.Random(0))
    assert len(cases[1]) > 200 and len(cases[1]) * len(stress.doors.DOORS) + len(cached) > 1200


def test_the_gadgets_are_loaded(stress, cases, tmp_path):
    """By pickle itself they do what they are made for; or the corpus would prove nothing."""
    marker = cases[0] / 'ran'
    ran = []
    for name, gadget in stress.corpus.gadgets(marker).items():
        try:
            pickle.loads(stress.formats.dumps(gadget))
        except Exception:  # of what a gadget leads to
            pass
        if marker.exists():
            ran.append(name)
            marker.unlink()
    assert {'os.system', 'posix.system', 'subprocess', 'open', 'eval', 'exec', 'map', 'pickle in a pickle'} <= {*ran}


def test_nothing_in_the_corpus_runs_and_all_of_it_is_refused_or_loads(cases):
    folder, found = cases
    marker, wrong = folder / 'ran', []
    for kind, case in found.items():
        if kind.startswith('bomb: compressed'):  # seconds to write; below, smaller
            continue
        path = folder / f'case{case.suffix}'
        case.make(path)
        try:
            read_checkpoint(str(path), 'here')
            outcome = 'loads'
        except ConfigError as error:
            assert str(error).startswith('- here: ') and len(error.problems) == 1
            outcome = 'refused'
        assert not marker.exists(), kind
        expected = 'either' if kind.startswith(FIT) else case.expected('teacher')
        if expected not in ('either', outcome):
            wrong.append((kind, outcome))
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    assert not wrong


@pytest.mark.parametrize('name', ['data/0', 'data.pkl'])
def test_compressed_records_are_refused_before_they_are_read(stress, tmp_path, name):
    stress.corpus.zip_bomb(tmp_path / 'a.pth', name, size=2**25)
    with pytest.raises(ConfigError, match='its records are compressed, which torch.save does not do'):
        read_checkpoint(str(tmp_path / 'a.pth'), 'here')
    with zipfile.ZipFile(tmp_path / 'a.pth') as archive:
        assert (tmp_path / 'a.pth').stat().st_size * 100 < sum(record.file_size for record in archive.infolist())


def test_a_damaged_cache_folder_is_refused_or_computed_again(stress, tmp_path):
    door = stress.doors.CacheDoor(tmp_path)
    for kind, (expected, change) in door.cases(random.Random(0)).items():
        if expected == 'loads':
            door.run(change)
            continue
        with pytest.raises(ConfigError, match='^- teacher cache: ') as error:
            door.run(change)
        assert 'cache' in str(error.value), kind


def test_a_slice_of_the_corpus_at_every_door_of_the_tools(tool, tmp_path):
    tool('tools/stress/checkpoints.py', '--every', 127, '--offset', 9, '--json', tmp_path / 'rows.jsonl')
    rows = [json.loads(line) for line in (tmp_path / 'rows.jsonl').read_text().splitlines()]
    assert len({row['door'] for row in rows}) >= 5 and len(rows) >= 10
