"""Runs tools, each in a process of its own, without the seconds that its large imports take: in forks of this process,
which has made them.

Reads a line of JSON for each, ``{arguments, environment, output, seconds}``, and answers with its exit status. What a
tool imports of the libraries of models, and of sfkd, it still imports itself, so that none is missed here alone.
Neither numba's tables nor the collector's passes over all of that are made in each fork again.
"""
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time

LIBRARIES = ('torch', 'torchvision', 'matplotlib.pyplot', 'scipy.stats', 'sklearn.metrics', 'numba', 'wandb',
             'sklearn.mixture', 'mmengine.runner', 'mmcv', 'torch.utils.tensorboard', 'timm',
             'transformers.models.bert.modeling_bert')


def serve() -> dict | None:
    """Answers requests; in each fork, and at the end, it returns: with the request, with None."""
    for line in sys.stdin:
        request = json.loads(line)
        if not (child := os.fork()):
            return request
        end = time.monotonic() + request['seconds']
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.02)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)
    return None


if __name__ == '__main__':
    for library in LIBRARIES:
        importlib.import_module(library)
    sys.modules['numba'].njit(lambda: None)()
    gc.freeze()
    if request := serve():
        with open(request['output'], 'wb') as output, open(os.devnull, 'rb') as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.argv = request['arguments']
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        os.environ.clear()
        os.environ.update(request['environment'])
        runpy.run_path(sys.argv[0], run_name='__main__')
