"""Puts vespa_app/ (without its models) and variants/ into the wheel, as vespa_package/bundle/; all else is in
pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPackage(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the folders are read where they stand
            return
        bundle = Path(self.build_lib) / "vespa_package" / "bundle"
        shutil.rmtree(bundle, ignore_errors=True)
        for name in ("vespa_app", "variants"):
            shutil.copytree(name, bundle / name, ignore=shutil.ignore_patterns("models", ".*"))


setup(cmdclass={"build_py": BuildWithPackage})
