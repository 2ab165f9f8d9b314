"""The test suite. A package, so that tests can share `tests.contract`, `tests.tiny_checkpoints` and the like."""

import pytest

pytest.register_assert_rewrite("tests.contract")
