"""The house: who imports whom, where Spark may be, no clock in the core, thin jobs, settings written once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from twofold.settings import Settings, load_settings, reference_yaml

ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "lib" / "twofold"

#: In reading order: a module imports only what stands above it.
CORE = (
    "errors",
    "timeline",
    "currency",
    "strict_json",
    "fact_rules",
    "events",
    "columns",
    "states",
    "rankings",
    "features",
    "families",
    "catalogue",
    "rules",
    "rule_grammar",
    "segments",
    "views",
    "retractions",
    "merge",
    "next_change",
    "record",
    "pinned",
    "contributing",
    "explanation",
    "explain",
    "membership",
    "audit",
    "contiguity",
    "settings",
)
#: What each room may import, beside itself and the core.
ROOMS = {
    "stores": set(),
    "kafka": {"stores"},
    "spark": {"kafka", "stores"},
    "testing": {"stores"},
    "local": {"kafka", "stores", "testing", "reader", "show"},
    "pinned_reader": {"stores"},
    "reader": {"stores", "pinned_reader"},
    "show": set(),
    "show_explanation": {"show"},
    "commands": {"kafka", "stores", "testing", "local", "reader", "pinned_reader", "show", "show_explanation"},
    "cli": {"commands", "show"},
}


def _modules() -> dict[str, Path]:
    return {str(path.relative_to(LIB).with_suffix("")).replace("/", "."): path for path in sorted(LIB.rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """What a module imports, be it only when a function runs; of the core not what is for type checking or inside ``native_…``."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.parent.name == "families" or path.stem in CORE:
        tree = _Loaded().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "twofold")
    return found


class _Loaded(ast.NodeTransformer):
    """A module without what runs only where Spark is: bodies of functions called ``native_…``, and what types are checked with."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if node.name.lstrip("_").startswith("native_") else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if checking else self.generic_visit(node)


def _ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in _imports(path) if name.startswith("twofold.")}


def _files(module: str) -> list[Path]:
    """The file of a module of the core, or the files of a room of it."""
    return sorted((LIB / module).glob("*.py")) or [LIB / f"{module}.py"]


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_only_upwards(module: str) -> None:
    below = set(CORE[CORE.index(module) :]) - {module}
    for path in _files(module):
        others = _ours(path) - set(CORE)
        assert not others, f"{path.name} imports rooms outside the core: {others}"
        assert not _ours(path) & below, path.name


def test_rooms_import_what_they_may() -> None:
    for name, path in _modules().items():
        room = name.split(".")[0]
        if room in CORE or room == "__init__":
            continue
        assert room in ROOMS, f"{name}: a room that no one has placed"
        strangers = _ours(path) - set(CORE) - ROOMS[room] - {room}
        assert not strangers, f"{name} imports {strangers}"


def test_spark_is_imported_in_one_room_only() -> None:
    for name, path in _modules().items():
        roots = {imported.split(".")[0] for imported in _imports(path)}
        if not name.startswith("spark"):
            assert not roots & {"pyspark", "delta"}, name


def test_tables_are_opened_in_one_place_only() -> None:
    for name, path in _modules().items():
        roots = {imported.split(".")[0] for imported in _imports(path)}
        if not name.startswith("testing"):
            assert "deltalake" not in roots or name == "stores.places", f"{name}: open tables with stores.places.open_table"


def test_kafka_is_not_needed_to_read_records() -> None:
    script = (
        "import sys, twofold, twofold.reader; "
        "sys.exit(any(m.split('.')[0] in ('pyspark', 'kafka', 'delta', 'py4j') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_core_reads_no_clock_and_does_no_input_or_output() -> None:
    forbidden = {"time", "random", "socket", "subprocess", "threading", "kafka", "lmdb", "deltalake", "pyarrow", "uuid"}
    for module in CORE:
        if module == "settings":
            continue
        for path in _files(module):
            assert not {name.split(".")[0] for name in _imports(path)} & forbidden, module
            source = path.read_text(encoding="utf-8")
            for call in ("datetime.now", "utcnow(", "date.today", "open("):
                assert call not in source, f"{path.name} calls {call}"


def test_the_oracle_shares_only_admission_and_time() -> None:
    """And asks the families' own recomputations, of which ``tests/laws/test_families.py`` says that they share nothing else."""
    assert _ours(LIB / "testing" / "oracle.py") <= {"errors", "events", "timeline", "families"}


def test_a_family_is_one_file_that_nothing_names() -> None:
    names = {name.split(".")[1] for name in _modules() if name.startswith("families.")} - {"family", "__init__"}
    assert len(names) > 3
    for name, path in _modules().items():
        if not name.startswith("families."):
            named = {found.split(".")[2] for found in _imports(path) if found.startswith("twofold.families.")}
            assert not named & names, f"{name} names a family: {named & names}"


def test_jobs_are_thin() -> None:
    for job in (ROOT / "jobs").glob("*.py"):
        assert len(job.read_text(encoding="utf-8").splitlines()) <= 60, job.name


def test_no_file_is_two_rooms_and_no_name_says_nothing() -> None:
    for name, path in _modules().items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, name
        assert path.stem not in ("utils", "util", "common", "helpers", "misc")


def test_the_reference_is_the_code() -> None:
    text = (ROOT / "conf" / "reference.yaml").read_text(encoding="utf-8")
    assert text == reference_yaml(), "conf/reference.yaml is not what settings.reference_yaml() gives"
    assert Settings.model_validate(yaml.safe_load(text)) == load_settings(environ={})


@pytest.mark.parametrize("name", ["local", "prod"])
def test_the_shipped_settings_load(name: str) -> None:
    load_settings(ROOT / "conf" / f"{name}.yaml", environ={})


def test_lib_is_not_ignored_by_git() -> None:
    done = subprocess.run(["git", "check-ignore", "lib/twofold/events.py"], cwd=ROOT, check=False, capture_output=True)
    assert done.returncode == 1


def test_no_jar_stands_twice_on_a_class_path() -> None:
    import pyspark

    shipped = {_artifact(jar.name) for jar in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
    ours = [_artifact(jar.name) for jar in (ROOT / "build" / "jars" / "spark").glob("*.jar")]
    assert ours, "build/jars/spark is empty: run `make setup`"
    assert len(ours) == len(set(ours))
    assert not shipped & set(ours)
    broker = [_artifact(jar.name) for jar in (ROOT / "build" / "jars" / "broker").glob("*.jar")]
    assert broker
    assert len(broker) == len(set(broker))


def _artifact(jar: str) -> str:
    """The name of a jar without its version."""
    parts = jar.removesuffix(".jar").split("-")
    return "-".join(part for part in parts if not part[:1].isdigit())


def test_locks_hold_no_address() -> None:
    for file in ("requirements.lock", "requirements.in", "requirements-dev.in", "pyproject.toml"):
        assert "://" not in (ROOT / file).read_text(encoding="utf-8"), file
