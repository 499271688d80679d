"""Every example in a docstring of numpush runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import numpush

MODULES = [
    "numpush",
    *(
        module.name
        for module in pkgutil.walk_packages(numpush.__path__, "numpush.")
        if not module.name.endswith(("._build", ".__main__", "._numpush"))
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    module = importlib.import_module(name)
    with np.printoptions(legacy=False):
        failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = sum(len(t.examples) for n in MODULES for t in finder.find(importlib.import_module(n)))
    assert found > 10
