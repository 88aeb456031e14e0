"""The conformance class lives outside test modules: have its assertions explained all the same."""

import pytest

pytest.register_assert_rewrite("tests.backends.conformance")
