"""Chromium for tests of pages; Playwright's library drives that of the machine, and downloads none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDED = pytest.mark.skipif(PATH is None, reason="no chromium on this machine (Debian: apt install chromium)")


@contextmanager
def launched() -> Iterator:
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox cannot be set up by root, as whom tests in containers run.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=PATH, args=options)
        yield found
        found.close()


# Of each pair of colours that a text with letters in it is written in, how much the two differ.
CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const bright = (color) => color.slice(0, 3).map((c) => linear(c / 255))
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (one) => { const found = rgb(getComputedStyle(one).backgroundColor);
    return found.length < 4 || found[3] ? found : one.parentElement ? behind(one.parentElement) : [255, 255, 255]; };
  const found = {};
  for (const one of document.querySelectorAll('main *, header *')) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || one.closest('svg, option') || one.disabled || !one.checkVisibility()) continue;
    const [a, b] = [bright(rgb(getComputedStyle(one).color)), bright(behind(one))].sort((x, y) => y - x);
    found[`${one.tagName}.${one.className} ${getComputedStyle(one).color} on ${behind(one)}`] = (a + 0.05) / (b + 0.05);
  }
  return found;
}"""
