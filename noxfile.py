"""The tests on each Python that is there: ``nox``, or ``nox -s tests-3.14``. Each stage is `.ci/dev.py`'s own.

It makes ``.venv`` for the Python that runs it, so that a session goes through it whole before the next begins.
"""

from __future__ import annotations

import shutil
import sys

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]

nox.options.default_venv_backend = "none"


def _python(version: str) -> str | None:
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    return sys.executable if version == running else shutil.which(f"python{version}")


def _add(version: str) -> None:
    @nox.session(name=f"tests-{version}", python=False)
    def tests(session: nox.Session) -> None:
        python = _python(version)
        if python is None:
            session.skip(f"there is no python{version}")
        session.run(python, ".ci/dev.py", "test", *session.posargs, external=True)


for version in PYTHONS:
    _add(version)
