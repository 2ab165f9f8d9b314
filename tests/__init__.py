"""The test suite. A package, so that tests can share `tests.contract`, `tests.tiny_checkpoints` and the like."""

import os

import pytest

# Before torch is imported: where others use the cores too, two threads were measured ten times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("tests.contract")
