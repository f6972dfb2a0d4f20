"""The command ``sfkd`` runs what lies in tools/, by names of one word."""
import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sfkd import command

ROOT = Path(__file__).resolve().parents[1]


def sfkd(*arguments: str, cwd: Path, status: int = 0) -> str:
    done = subprocess.run([sys.executable, '-m', 'sfkd', *arguments], cwd=cwd, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, timeout=300)
    assert done.returncode == status, done.stdout
    return done.stdout


def test_every_tool_is_a_command_of_one_word():
    found = command.commands()
    assert set(found.values()) == set((ROOT / 'tools').glob('*.py'))
    assert {'train', 'test', 'inspect', 'export', 'compare', 'together', 'browse', 'draw', 'analyse', 'make'} <= set(
        found)
    assert found['together'].name == 'train_together.py' and found['train'].name == 'train.py'


def test_a_new_file_is_a_new_command(tmp_path, monkeypatch):
    (tmp_path / 'distill.py').write_text('"""Teach any network by\nanother. At once."""\n')
    (tmp_path / 'draw.py').touch()
    (tmp_path / 'draw_more.py').touch()
    monkeypatch.setattr(command, 'TOOLS', tmp_path)
    found = command.commands()
    assert {name: file.stem for name, file in found.items()} == dict(distill='distill', draw='draw', more='draw_more')
    assert command.summary(found['distill']) == 'Teach any network by another'


@pytest.mark.parametrize('arguments', [[], ['--help']])
def test_the_list_has_a_line_a_tool(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, 'argv', ['sfkd', *arguments])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(command.commands())
    first = ast.get_docstring(ast.parse((ROOT / 'tools/train.py').read_text())).partition('.')[0]
    assert f'  train       {first}' in lines


def test_an_unknown_command_names_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['sfkd', 'traim'])
    with pytest.raises(SystemExit) as ended:
        command.main()
    text = capsys.readouterr().err
    assert ended.value.code == 2 and "there is no command 'traim'; nearest are 'train'" in text


def test_from_an_empty_folder_a_tool_runs_as_its_file_does(tool, tmp_path):
    """The same output and status; configs and weights by ``sfkd::``, in a file of the user's own too."""
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'sfkd::mini/cls_mixer'\ncustom_imports = dict(imports=['sfkd'])\n"
        "model = dict(_delete_=True, type='SFKD', student={{_base_.model}}, input_size=64,\n"
        "             teacher='sfkd::mini/cls_resnet', teacher_ckpt='sfkd::mini/teachers/resnet.safetensors')\n")

    def table(text: str) -> str:
        return text[text.index('input 64x64'):text.index('one training step')]
    ours = table(sfkd('inspect', 'mine.py', '--load-teacher', cwd=tmp_path))
    file = tool('tools/inspect_pair.py', 'configs/mini/cls_resnet_to_mixer.py', '--load-teacher')
    assert 'backbone.layer4' in ours and ours == table(file)


def test_a_mistake_says_what_to_type(tmp_path):
    text = sfkd('train', 'sfkd::mini/cls_resnet_to_mixer.py', cwd=tmp_path, status=2)
    assert text.startswith('sfkd train: 3 problems') and 'make it with: sfkd make cls' in text


HIDING = '''
import sys
from importlib.machinery import PathFinder
hidden, stock = {hidden}, PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, *rest: None if name.partition('.')[0] in hidden else stock(name, *rest))
from sfkd import command
sys.argv = ['sfkd', *{arguments}]
command.main()
'''


@pytest.mark.parametrize('hidden, arguments', [
    ({'sklearn'}, ['make', 'cls']), ({'mmpretrain'}, ['train', 'sfkd::mini/cls_resnet_to_mixer'])])
def test_what_a_plain_installation_lacks_is_named(tmp_path, hidden, arguments):
    done = subprocess.run([sys.executable, '-c', HIDING.format(hidden=hidden, arguments=arguments)], cwd=tmp_path,
                          text=True, capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode and 'Traceback' not in done.stderr
    assert next(iter(hidden)) in done.stderr and "pip install 'sfkd[mm]'" in done.stderr
