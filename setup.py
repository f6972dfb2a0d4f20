from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION: dict[str, str] = {}
exec((ROOT / 'sfkd/version.py').read_text(), VERSION)


def requirements(name: str) -> list[str]:
    """The lines of a file and of those that it names with -r, but for what every installation has."""
    lines = [line.partition('#')[0].split() for line in (ROOT / f'requirements/{name}.txt').read_text().splitlines()]
    named = [Path(line[1]).stem for line in lines if line[:1] == ['-r']]
    own = [' '.join(line) for line in lines if line and line[0] != '-r']
    return [*own, *(line for other in named if other != 'runtime' for line in requirements(other))]


setup(
    name='sfkd',
    version=VERSION['__version__'],
    description='Spatial-frequency knowledge distillation between different architectures, on OpenMMLab',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['sfkd', 'sfkd.*']),
    # links in the checkout, files in the wheel
    package_data={'sfkd': ['.mim/tools/*.py', '.mim/tools/dist_*.sh', '.mim/tools/slurm_train.sh',
                           '.mim/tools/get_fashion_mnist.sh', '.mim/configs/**/*.py', '.mim/configs/**/*.safetensors',
                           '.mim/configs/**/*.yml', '.mim/configs/**/*.log', '.mim/model-index.yml']},
    entry_points=dict(console_scripts=['sfkd = sfkd.command:main']),
    python_requires='>=3.10,<3.13',
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in ('mm', 'tests', 'docs', 'optional', 'onnx')},
)
