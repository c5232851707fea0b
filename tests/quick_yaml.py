"""YAML by libyaml, for tests, which read and write params.yaml hundreds of times: ten times as fast as in Python."""

from typing import Any

import yaml

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(text: str) -> Any:
    return yaml.load(text, Loader=Loader)


def dump(value: Any, **options: Any) -> str:
    return yaml.dump(value, Dumper=Dumper, **options)
