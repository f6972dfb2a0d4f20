"""Tools as a user runs them, each in a process of its own."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> str:
    """Of this machine, for processes that meet: other trainings may be under way on it."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


class Tool:
    """``tool('tools/train.py', ...)`` gives what the command printed; ``tool.start(...)`` its process.

    Args:
        output: file for what a command prints.
    """

    def __init__(self, output: Path):
        self.output = output
        self.preloaded: subprocess.Popen | None = None

    @staticmethod
    def environment() -> dict[str, str]:
        return {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable,
                'PORT': free_port()}

    def start(self, *arguments) -> subprocess.Popen:
        command = ['bash' if str(arguments[0]).endswith('.sh') else sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment(), text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def __call__(self, *arguments, status: int = 0) -> str:
        if str(arguments[0]).endswith('.py'):
            found, text = self._in_a_fork(*map(str, arguments))
        else:
            process = self.start(*arguments)
            text, _ = process.communicate(timeout=300)
            found = process.returncode
        assert found == status, text[-3000:]
        return text

    def _in_a_fork(self, *arguments: str) -> tuple[int, str]:
        """Of a process that has the large libraries already (preloaded.py)."""
        if self.preloaded is None:
            self.preloaded = subprocess.Popen([sys.executable, ROOT / 'tests/preloaded.py'], cwd=ROOT, text=True,
                                              env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        request = dict(arguments=arguments, environment=self.environment(), output=str(self.output), seconds=300)
        self.preloaded.stdin.write(json.dumps(request) + '\n')
        self.preloaded.stdin.flush()
        status = int(self.preloaded.stdout.readline())
        return status, self.output.read_text()

    def close(self) -> None:
        if self.preloaded is not None:
            self.preloaded.stdin.close()
            self.preloaded.wait()
