"""The site, built once a session."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def site(tmp_path_factory) -> Path:
    """The folder of the built site; the build is strict, so that a warning fails."""
    pytest.importorskip('material', reason='the site wants: pip install -r requirements/docs.txt')
    pytest.importorskip('mkdocstrings', reason='the site wants: pip install -r requirements/docs.txt')
    folder = tmp_path_factory.mktemp('site')
    environment = {**os.environ, 'NO_MKDOCS_2_WARNING': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', folder], cwd=ROOT,
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0 and 'WARNING' not in done.stdout, done.stdout[-3000:]
    return folder
