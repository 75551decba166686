"""Slow: the mark of tests that take a minute or more, and run with JAXCNN_SLOW_TESTS=1 only."""

import os

import pytest

WANTED = bool(os.environ.get("JAXCNN_SLOW_TESTS"))
slow = pytest.mark.skipif(not WANTED, reason="takes a minute or more: set JAXCNN_SLOW_TESTS=1 to run it, too")
