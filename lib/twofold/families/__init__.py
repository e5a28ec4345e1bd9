"""The feature families: each module here that brings a ``FAMILY`` is one, found by being here, in the order of the names."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from twofold.families.family import Family


def _found() -> dict[str, Family]:
    modules = {name: import_module(f"{__name__}.{name}") for name in sorted(module.name for module in iter_modules(__path__))}
    return {name: module.FAMILY for name, module in modules.items() if hasattr(module, "FAMILY")}


#: module name -> family
FAMILIES: dict[str, Family] = _found()
