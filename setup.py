"""Package metadata; every dependency's purpose is in docs/dependencies.md."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "fmi/__init__.py").read_text()).group(1)

CUDA = [
    "nvidia-cudnn-cu11==8.9.6.50",
    "nvidia-nccl-cu11==2.21.5",
    "nvidia-cuda-runtime-cu11==11.8.89",
    "nvidia-cublas-cu11==11.11.3.6",
    "nvidia-cufft-cu11==10.9.0.58",
    "nvidia-cusolver-cu11==11.4.1.48",
    "nvidia-curand-cu11==10.3.0.86",
    "nvidia-cuda-nvrtc-cu11==11.8.89",
    "nvidia-nvtx-cu11==11.8.86",
]
WEIGHTS = ["safetensors>=0.3", "scipy>=1.8"]  # readers of .safetensors and .mat
# PyTorch 2.13 needs Python 3.10; older ones get the last that they can.
BENCH = ["torch==2.13.0; python_version >= '3.10'", "torch; python_version < '3.10'"]
CLAIMS = ["scikit-learn>=1.0"]  # KMeans, photographs
VIDEO = ["imageio-ffmpeg"]  # videos of descents
COMPLETION = ["shtab"]
CLUSTER = ["distributed"]  # sweeps on a cluster
NOTEBOOK = ["jupyterlab", "ipywidgets"]
DOCS = [
    "sphinx>=7",
    "myst-nb>=1.1",
    "numpydoc>=1.6",
    "furo>=2024.1.29",
    "sphinx-copybutton>=0.5.2",
    "sphinxcontrib-programoutput>=0.17",  # the helps of the commands
]
TEST = [
    *VIDEO,
    *COMPLETION,
    *CLUSTER,
    "pytest",
    "pytest-xdist",  # make test on several cores
    "hypothesis",
    "psutil",
    "nbclient",
    "ipykernel",
    "ipywidgets",
]

setup(
    name="fmi",
    version=VERSION,
    description="What does a filter of a convolutional network extract from a picture?",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="fmi developers",
    keywords=[
        "convolutional neural networks",
        "feature visualisation",
        "feature map inversion",
        "texture",
        "style transfer",
        "MXNet",
    ],
    project_urls={
        "Paper": "https://arxiv.org/abs/1608.04170",
        "Code of 2016": "https://github.com/xzqjack/FeatureMapInversion",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Framework :: Jupyter",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(8, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Visualization",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=["fmi", "fmi.*"]), "fmi.models"],
    package_dir={"fmi.models": "models"},
    package_data={
        "fmi": ["py.typed", "runs/*.yaml", "atlas/templates/*.html", "atlas/static/*"],
        "fmi.models": ["*.yaml", "embedded.npz", "EMBEDDED.md"],
    },
    python_requires=">=3.8,<3.13",
    install_requires=[
        # The lowest versions are tested together: make test-lowest.
        "numpy>=1.23,<2",
        "pillow>=9.1",  # Image.Resampling
        "matplotlib>=3.6",  # colormaps, parse_math
        "pyyaml>=5.4",
        "pooch>=1.6",
        "requests>=2.25",
        "scikit-image>=0.19",  # channel_axis
        "tqdm>=4.60",  # tqdm.contrib.logging
        "h5py>=3.1",
        "jinja2>=3.0",
        "markupsafe>=2.0",
        "pydantic>=2.0",
        "typing_extensions>=4.6.1",
        "setuptools; python_version >= '3.12'",
    ],
    extras_require={
        "cpu": ["mxnet==1.9.1"],
        "cu112": ["mxnet-cu112==1.9.1", *CUDA],
        "weights": WEIGHTS,
        "bench": BENCH,
        "video": VIDEO,
        "completion": COMPLETION,
        "cluster": CLUSTER,
        "claims": CLAIMS,
        "notebook": NOTEBOOK,
        "docs": DOCS,
        "test": [*TEST, *WEIGHTS, *CLAIMS],
        "dev": [
            *TEST,
            *WEIGHTS,
            *CLAIMS,
            *DOCS,
            "ruff",
            "mypy",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
    entry_points={"console_scripts": ["fmi=fmi.cli:main"]},
)
