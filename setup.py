"""The packages of the wheel; everything else is said in pyproject.toml.

Configs and weights lie at the top of the repository. In the wheel they are one package of data,
`vsdmot_data`, which `model.shipped` knows: other projects also have folders called `configs`.
"""

from setuptools import find_packages, setup

_DATA = {
    "vsdmot_data.configs": "configs",
    "vsdmot_data.configs.teachers": "configs/teachers",
    "vsdmot_data.weights": "weights",
}
_CODE = ("model", "pipeline", "jobs")

setup(
    packages=[*find_packages(include=[*_CODE, *(f"{name}.*" for name in _CODE)]), *_DATA],
    package_dir=_DATA,
)
