"""Distillation by pictures alone: tools/distill.py, and a config whose backbone goes into any stock config."""
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from safetensors.torch import load_file

from sfkd.errors import ConfigError
from sfkd.labelfree import distil, training
from sfkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
NETS = '''
import torch
from torch import nn

def network(width, drop):
    def stage(a, b):
        return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Dropout(drop))
    return nn.Sequential(*(stage(a, b) for a, b in ((3, width), (width, width), (width, width), (width, width))))

def student():
    return network(8, 0.2)

def teacher():
    return network(12, 0.0)
'''


@pytest.fixture
def nets(tmp_path):
    (tmp_path / 'nets.py').write_text(NETS)
    return f'{tmp_path}/nets.py'


def same(a: Path, b: Path) -> bool:
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_interrupted_and_resumed_ends_where_the_uninterrupted_run_does(tool, digits, nets, tmp_path):
    command = ['tools/distill.py', '--student', f'{nets}:student', '--teacher', f'{nets}:teacher', '--pictures',
               digits / 'train', '--input-size', 32, '--steps', 60, '--batch-size', 50, '--workers', 1, '--out']
    whole = tool(*command, tmp_path / 'whole.safetensors')
    assert 'the whole training' in whole and '] 60/60  epoch' in whole and not (tmp_path / 'whole.resume.pth').exists()
    assert Image.open(tmp_path / 'whole.png').size[0] > 300
    process = tool.start(*command, tmp_path / 'cut.safetensors')
    for line in process.stdout:
        if line.startswith('a step takes'):  # after three steps
            process.send_signal(signal.SIGTERM)
            break
    assert 'SIGTERM: the run has ended' in process.stdout.read() and process.wait() == 128 + signal.SIGTERM
    assert not (tmp_path / 'cut.safetensors').exists()
    done = torch.load(tmp_path / 'cut.resume.pth')['done']
    assert 3 <= done < 60
    text = tool(*command, tmp_path / 'cut.safetensors', '--resume')
    assert f'--resume: after step {done}' in text
    assert same(tmp_path / 'whole.safetensors', tmp_path / 'cut.safetensors')


def options(digits, nets, tmp_path, **others) -> dict:
    return dict(dict(student=f'{nets}:student', teacher=f'{nets}:teacher', pictures=str(digits / 'train'),
                     out=str(tmp_path / 'student.safetensors'), input_size=32, steps=3, batch_size=8,
                     workers=0), **others)


def test_what_came_out_cannot_be_lost_and_other_pictures_or_another_teacher_do_not_go_on(
        digits, nets, tmp_path, monkeypatch, capsys):
    def full(state, file):
        if str(file).endswith('student.safetensors'):
            raise ConfigError('the disk is full')
        write(state, file)
    write = training.write_checkpoint
    monkeypatch.setattr(training, 'write_checkpoint', full)
    weights = tmp_path / 'teacher.pth'
    distil(**options(digits, nets, tmp_path, student=f'{nets}:teacher', steps=1, out=str(weights)))
    asked = options(digits, nets, tmp_path, teacher_weights=str(weights))
    with pytest.raises(ConfigError, match='the disk is full'):
        distil(**asked)
    monkeypatch.undo()
    (tmp_path / 'others').mkdir()
    for i, file in enumerate(sorted((digits / 'train').rglob('*.png'))):  # as many
        (tmp_path / 'others' / f'{i}.png').write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="digest_of_pictures was '.*' and is '"):
        distil(**dict(asked, pictures=str(tmp_path / 'others'), resume=True))
    kept = weights.read_bytes()
    torch.save({key: value + 1 if value.is_floating_point() else value for key, value in torch.load(weights).items()},
               weights)
    with pytest.raises(ConfigError, match="digest_of_teacher was '.*' and is '"):
        distil(**dict(asked, resume=True))
    weights.write_bytes(kept)
    capsys.readouterr()
    distil(**dict(asked, resume=True))
    assert '--resume: after step 3' in capsys.readouterr().out and (tmp_path / 'student.safetensors').exists()


def test_the_student_loads_into_its_library(digits, nets, tmp_path, capsys):
    timm = pytest.importorskip('timm')
    for suffix in '.safetensors', '.pth':
        distil(**options(digits, nets, tmp_path, student='timm:test_resnet', input_size=64, amp=True,
                         out=str(tmp_path / f'as{suffix[1:]}{suffix}')))
    weights, same = load_file(tmp_path / 'assafetensors.safetensors'), torch.load(tmp_path / 'aspth.pth')
    assert weights.keys() == same.keys() and all(torch.equal(value, same[key]) for key, value in weights.items())
    stock = timm.create_model('test_resnet')
    stock.load_state_dict(weights)
    assert all(torch.equal(value, weights[key]) for key, value in stock.state_dict().items())
    assert "for timm.create_model('test_resnet')" in capsys.readouterr().out


def test_it_learns_and_begins_where_it_is_told_to(digits, nets, tmp_path, capsys):
    def losses(**others):
        distil(**options(digits, nets, tmp_path, **others))
        text = capsys.readouterr()
        return text.out, float(text.err.rpartition('loss ')[2].split()[0])
    _, first = losses(steps=1, lr=1e-9)
    (tmp_path / 'student.safetensors').rename(tmp_path / 'start.safetensors')
    _, last = losses(steps=None, epochs=2, lr=1e-2, overwrite=True)
    assert last < 0.9 * first
    start = str(tmp_path / 'start.safetensors')
    text, _ = losses(student_weights=start, teacher=f'{nets}:student', teacher_weights=start, steps=1, lr=1e-9,
                     overwrite=True)
    assert 'student: 28 weights' in text
    ours, before = load_file(tmp_path / 'student.safetensors'), load_file(start)
    assert torch.allclose(ours['0.0.weight'], before['0.0.weight'], atol=1e-6)


def test_mistakes_are_named(digits, nets, tmp_path):
    def refused(message, **others):
        with pytest.raises(ConfigError, match=message):
            distil(**options(digits, nets, tmp_path, **others))
    refused("--teacher: the weights of 'timm:test_resnet' would be random", teacher='timm:test_resnet', input_size=64)
    (tmp_path / 'empty').mkdir()
    refused('there is no picture in', pictures=str(tmp_path / 'empty'))
    refused('are too small: .* 64 px', input_size=160)
    refused("--out: 'student.bin' must end", out='student.bin')
    refused('--epochs and --steps', epochs=1)
    refused('--batch-size: 0 is not above 0', batch_size=0)
    refused('--steps: 0 is not above 0', steps=0)
    refused('--epochs: 0 is not above 0', steps=None, epochs=0)
    refused('--lr: nan is not above 0', lr=float('nan'))
    refused('--workers: -1 is below 0(.|\n)*--seed: -2 is below 0', workers=-1, seed=-2)
    refused("--device: 'cuda:99' cannot be used", device='cuda:99')
    refused('is not of this student', student_weights=str(other_weights(tmp_path)))
    refused('step 1: the loss is nan', student=f'{nan_student(tmp_path)}:student')
    distil(**options(digits, nets, tmp_path))
    refused('--out: there is a .* already; give another, or --overwrite')
    (tmp_path / 'student.safetensors').rename(tmp_path / 'student.resume.pth')
    refused('is of an interrupted run; go on with --resume')
    (tmp_path / 'student.png').unlink()
    torch.save(dict(run=dict(lr=3.0)), tmp_path / 'student.resume.pth')
    refused('is of another run: .*lr was 3.0 and is 0.001', resume=True)


def test_a_place_that_takes_no_file_is_named_before_anything_is_built(digits, nets, tmp_path):
    def refused(message, **others):
        with pytest.raises(ConfigError, match=message) as error:
            distil(**options(digits, nets, tmp_path, student='timm:none', **others))
        assert len(error.value.problems) == 1
    (tmp_path / 'student.png').write_text('a picture of mine')
    refused("--out: there is a '.*student.png' already; give another, or --overwrite")
    assert (tmp_path / 'student.png').read_text() == 'a picture of mine'
    (tmp_path / 'folder.pth').mkdir()
    refused("--out: '.*folder.pth' is a folder", out=str(tmp_path / 'folder.pth'), overwrite=True)
    refused(r"nets.py/new/x.pth' cannot be written \(Not a directory\)", out=f'{nets}/new/x.pth')
    refused('--student: timm has no model|--student: timm cannot', out=str(tmp_path / 'new/er/x.pth'))
    assert sorted(file.name for file in tmp_path.iterdir()) == ['folder.pth', 'nets.py', 'student.png']


def other_weights(folder):
    torch.save(dict(fc=torch.zeros(3)), folder / 'other.pth')
    return folder / 'other.pth'


def nan_student(folder):
    (folder / 'nan.py').write_text(NETS.replace('return network(8, 0.2)', (
        'found = network(8, 0.2)\n    found[0][0].weight.data[:] = torch.nan\n    return found')))
    return folder / 'nan.py'


# ---- by a config ----

UNLABELLED = 'configs/mini/cls_swin_to_resnet8_without_labels.py'


def test_a_backbone_that_learned_without_labels_goes_into_a_stock_config(tool, digits, tmp_path):
    """In two processes, which must not wait for the head's gradients."""
    text = tool('tools/dist_train.sh', UNLABELLED, 2, '--work-dir', tmp_path, '--cfg-options',
                f'train_dataloader.dataset.data_root={digits}/train', 'train_dataloader.batch_size=20',
                'train_cfg.max_epochs=1', 'param_scheduler.1.end=3', 'param_scheduler.1.T_max=2')
    assert 'distill.layer4.loss_spatial' in text and 'task.loss' not in text
    trained = torch.load(tmp_path / 'student_latest.pth', weights_only=False)['state_dict']
    config = Config.fromfile(ROOT / 'configs/mini/cls_resnet8.py')
    config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'student_latest.pth'),
                                          prefix='backbone.')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        stock = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    before = {key: value.clone() for key, value in stock.backbone.state_dict().items()}
    stock.init_weights()
    after = stock.backbone.state_dict()
    assert len(after) == sum(key.startswith('backbone.') for key in trained) > 100
    assert all(torch.equal(value, trained[f'backbone.{key}']) for key, value in after.items())
    assert not torch.equal(before['layer4.1.conv2.weight'], after['layer4.1.conv2.weight'])
    assert not torch.equal(stock.head.fc.weight, trained['head.fc.weight'])
