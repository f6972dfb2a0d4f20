"""The notebooks run from the first cell to the last, on few pictures."""
import os
import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip('nbformat')
from nbclient import NotebookClient  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def run(path: Path, parameters: str, folder: Path, monkeypatch) -> str:
    """What a notebook prints in a folder, with another first cell of code."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    notebook = nbformat.read(path, 4)
    first, = (cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', []))
    assert first.source == next(cell for cell in notebook.cells if cell.cell_type == 'code').source
    first.source = parameters
    NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=folder))).execute()
    return ''.join(output.get('text', '') for cell in notebook.cells for output in cell.get('outputs', ()))


@pytest.mark.long
def test_plain_pytorch(tmp_path, monkeypatch):
    pytest.importorskip('timm')
    text = run(ROOT / 'docs/notebooks/plain_pytorch.ipynb', 'pictures, epochs = 50, 1', tmp_path, monkeypatch)
    assert 'teacher: 8' in text and 'blocks.3 48x8x8 <- backbone.layer4 256x2x2' in text
    assert text.count('epoch 1: ') == 2 and (tmp_path / 'student.pth').exists()


@pytest.mark.long
def test_detector(tmp_path, monkeypatch):
    text = run(ROOT / 'docs/notebooks/detector.ipynb', 'pictures, epochs = 8, 1', tmp_path, monkeypatch)
    assert text.count('Epoch(val) [1]') == 2 and re.search(r'alone: \d+\.\d box AP, taught: \d+\.\d box AP', text)
    assert {path.name for path in tmp_path.iterdir()} >= {'pair.png', 'seen.png', 'student.safetensors'}


@pytest.mark.parametrize('name', ['plain_pytorch', 'detector'])
def test_what_is_kept_was_run_from_top_to_bottom(name):
    cells = [cell for cell in nbformat.read(ROOT / f'docs/notebooks/{name}.ipynb', 4).cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == 'error' for cell in cells for output in cell.outputs)
