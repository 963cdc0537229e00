"""An environment of its own for each contender, under the user's cache folder and outside the repository."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = {
    "tfrs": ["tensorflow-cpu", "tf-keras", "tensorflow-recommenders"],
    "torchrec_cpu": ["iopath", "pyre-extensions", "tqdm", "psutil"],
}
WITHOUT_DEPENDENCIES = {  # they would bring another torch: these see the one that runs the benchmark
    "torchrec_cpu": [
        *("torchrec==1.8.0", "fbgemm-gpu-cpu==1.8.0", "torchmetrics", "lightning-utilities"),
        *("tensordict", "pyvers", "orjson", "cloudpickle", "importlib_metadata", "zipp"),
    ],
}


def cache_folder() -> Path:
    """Where environments are kept: SHORTLIST_BENCHMARKS, else a folder in the user's cache."""
    return Path(os.environ.get("SHORTLIST_BENCHMARKS", Path.home() / ".cache" / "shortlist-benchmarks"))


def python_of(contender: str) -> str:
    """The interpreter that runs a contender; its environment is installed at the first call. Raises CalledProcessError where that fails."""
    if contender not in REQUIREMENTS:
        return sys.executable
    folder = cache_folder() / contender
    done, python = folder / "installed.stamp", folder / "bin" / "python"
    if not done.exists():
        print(f"installing {contender} into {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if contender in WITHOUT_DEPENDENCIES:
            _see_packages_of_this_environment(folder)
            subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES[contender]], check=True, stdout=sys.stderr)
        subprocess.run([*pip, *REQUIREMENTS[contender]], check=True, stdout=sys.stderr)
        done.touch()
    return str(python)


def _see_packages_of_this_environment(folder: Path) -> None:
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "parent.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
