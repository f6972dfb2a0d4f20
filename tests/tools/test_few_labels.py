"""Few labels, on made-up pictures: what is labelled, what a probe reads, and that rows are not made again."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Pictures whose class is the row of ten that is bright; the last of the training pictures are held out."""
    spec = importlib.util.spec_from_file_location('few_labels', ROOT / 'tools/few_labels.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def pictures_of(split):
        count = dict(train=300, test=60)[split]
        generator = torch.Generator().manual_seed(count)
        labels = torch.arange(count) % 10
        images = torch.randint(0, 40, (count, 28, 28), generator=generator).to(torch.uint8)
        images[torch.arange(count), 2 * labels + 3] = 255
        return images, labels
    monkeypatch.setattr(module, 'pictures_of', pictures_of)
    monkeypatch.setattr(module, 'HELD_OUT', 100)
    monkeypatch.setattr(module, 'A_CLASS', 12)
    monkeypatch.chdir(tmp_path)
    return module


def lessons(tool, **kwargs):
    return tool.Lessons(tool.STUDENT, **dict(dict(epochs=1, steps=30, batch_size=100, lr=3e-3), **kwargs))


def test_so_many_of_each_class_are_labelled_and_none_that_is_held_out(tool):
    found = lessons(tool)
    chosen = found.labelled(0)
    assert chosen.max() < 200 and len(chosen.unique()) == 120
    assert found.labels[chosen].bincount().tolist() == [12] * 10
    assert set(found.labelled(1).tolist()) != set(chosen.tolist())


def test_scores_are_shares_of_the_split_that_was_asked_for(tool):
    found = lessons(tool)
    student = found.student(0)
    with torch.no_grad():
        student.head.fc.weight.zero_()
        student.head.fc.bias.copy_(torch.nn.functional.one_hot(torch.tensor(3), 10))  # always class 3
    assert found.score(student, held_out=False) == pytest.approx(10)
    found.labels[-100:] = 3
    assert found.score(student, held_out=True) == pytest.approx(100)
    assert found.score(student, held_out=False) == pytest.approx(10)


def test_steps_on_labels_learn_and_a_probe_reads(tool):
    found = lessons(tool, steps=60)
    student = found.fine_tuned(found.student(0), 0, 3e-3)
    assert found.score(student, held_out=False) > 60 and found.probed(student, 0) > 60


def test_a_row_is_made_once(tool, monkeypatch, capsys):
    """Random weights and the ImageNet teacher's student, for real."""
    arguments = ['few_labels', '--starts', 'random', 'imagenet', '--seeds', '0', '--epochs', '1', '--steps', '3',
                 '--batch-size', '100', '--results', 'rows.jsonl']
    monkeypatch.setattr(sys, 'argv', arguments)
    tool.main()
    rows = [json.loads(line) for line in Path('rows.jsonl').read_text().splitlines()]
    assert [row['start'] for row in rows] == ['random', 'imagenet'] and all(row['lr'] in tool.RATES for row in rows)
    taught = torch.load('work_dirs/few_labels/imagenet_0_1.pth', weights_only=True)['state_dict']
    begun = lessons(tool).student(0).state_dict()
    changed = {key for key, value in taught.items() if not torch.equal(value, begun[key])}
    assert 'backbone.layer3.0.conv1.weight' in changed and 'head.fc.weight' not in changed
    table = capsys.readouterr().out
    tool.main()
    assert len(Path('rows.jsonl').read_text().splitlines()) == 2
    assert capsys.readouterr().out.splitlines()[-4:] == table.splitlines()[-4:]


def test_the_table_is_paired_by_seed(tool):
    rows = [dict(start=start, seed=seed, probe=probe, fine_tuned=tuned, lr=1e-3) for start, seed, probe, tuned in [
        ('random', 0, 40., 70.), ('random', 1, 50., 72.), ('imagenet', 0, 60., 80.), ('imagenet', 1, 72., 80.)]]
    *_, random, imagenet = tool.table(rows).splitlines()
    assert random == '| random | 45.00 ± 7.07 |  | 71.00 ± 1.41 |  | 0.001 |'
    assert imagenet.startswith('| imagenet | 66.00 ± 8.49 | +21.00 ± 12.71 | 80.00 ± 0.00 |  +9.00 ± 12.71 |')
