from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION: dict[str, str] = {}
exec((ROOT / 'sfkd/version.py').read_text(), VERSION)


def requirements(name: str) -> list[str]:
    lines = (line.partition('#')[0].strip() for line in (ROOT / f'requirements/{name}.txt').read_text().splitlines())
    return [line for line in lines if line and not line.startswith('-r')]


setup(
    name='sfkd',
    version=VERSION['__version__'],
    description='Spatial-frequency knowledge distillation between different architectures, on OpenMMLab',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['sfkd', 'sfkd.*']),
    python_requires='>=3.10,<3.13',
    install_requires=requirements('runtime'),
    extras_require={name: requirements(name) for name in ('tests', 'docs', 'optional', 'onnx')},
)
