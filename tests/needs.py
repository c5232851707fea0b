"""Marks for tests that need some of the assets: without them they are skipped, and say how to get them."""

import pytest

from benchmarks import assets


def needs(*paths: str) -> pytest.MarkDecorator:
    """Skips a test where one of these files or folders of the assets is not there."""
    reason = assets.lacking(*paths)
    return pytest.mark.skipif(reason is not None, reason=reason or "")
