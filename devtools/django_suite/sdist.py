"""Django's source distribution: the only place from which its tests can be had."""

import json
import tarfile
import tempfile
from pathlib import Path

from devtools.django_suite.errors import SuiteError
from devtools.django_suite.pip import pip

# The series that the package supports; pip takes the newest that the interpreter can run.
SUPPORTED = "Django>=5.2,<6.2"


def newest_version(python: Path) -> str:
    """The newest supported release of Django that *python* can run. Asks the package index."""
    asked = ("--dry-run", "--ignore-installed", "--no-deps", "--report", "-", SUPPORTED)
    found = json.loads(pip(python, "install", *asked))
    return str(found["install"][0]["metadata"]["version"])


def tests_folder(python: Path, version: str, work: Path) -> Path:
    """The tests of Django *version*, unpacked below *work*; downloaded if they are not there."""
    root = work / f"django-{version}"
    if not root.exists():
        # Unpacked elsewhere first: an interrupted run leaves no half of a tree behind.
        with tempfile.TemporaryDirectory(dir=work) as folder:
            _unpack(_download(python, version, Path(folder))).rename(root)
    return root / "tests"


def _download(python: Path, version: str, folder: Path) -> Path:
    source_only = ("--no-binary", "django", "--no-deps")
    pip(python, "download", *source_only, "-d", folder, f"Django=={version}")
    [archive] = folder.glob("*.tar.gz")
    return archive


def _unpack(archive: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(archive.parent, filter="data")
    for runner in archive.parent.glob("*/tests/runtests.py"):
        return runner.parent.parent
    raise SuiteError(f"{archive.name} has no tests/runtests.py.")
