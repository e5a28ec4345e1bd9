"""A suite of expectations over a frame, run by great-expectations: no network, no persisted frame, few passes.

Figures of whole columns (means, sums, extremes) come out of one aggregate, with what they observed. Expectations about single
values run ``BOOLEAN_ONLY``, and only those that failed a second time for their counts. Rows to blame are found natively.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from twofold.errors import SuiteError
from twofold.settings import Settings
from twofold.spark.suites import PARAMETER, Expected, Suite, load_suite
from twofold.stores.reports import Check, SuiteReport

#: The name of what is asked beside the suite: how many rows there are, and how many have a value in a column.
_ROWS = "(rows)"


@dataclass
class Offence:
    """A failed expectation and the rows to blame: all of them, lazily; ``None`` where no single row is."""

    check: Check
    rows: DataFrame | None


@dataclass
class Validated:
    """What a suite found; ``offences`` are the failed checks with their rows, for who wants to name some."""

    report: SuiteReport
    offences: list[Offence] = field(default_factory=list)


def open_context() -> Any:
    """An ephemeral context of great-expectations: in memory, without telemetry and progress bars."""
    context = _load().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    return context


def write_data_docs(context: Any, folder: Path) -> None:
    """great-expectations' own pages of all suites that were validated in a context. They call outside hosts when looked at."""
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    context.add_data_docs_site("twofold", {"class_name": "SiteBuilder", "store_backend": backend, "site_index_builder": index})
    context.build_data_docs(site_names=["twofold"])


def validate(
    frame: DataFrame,
    suite: Suite,
    name: str,
    parameters: Mapping[str, float] | None = None,
    context: Any = None,
    collected: bool = False,
) -> Validated:
    """Hold ``frame`` to a suite. ``parameters`` are the numbers that its limits may be computed from.

    ``context``: one of :func:`open_context` that several suites share, for their Data Docs; each in it once. ``collected``: what
    the suite asks about is few rows, computed once and asked here, for a frame whose plan alone is dear at each question.
    Raises :class:`SuiteError` when great-expectations does not know an expectation or its arguments.
    """
    started = time.monotonic()
    columns, missing = _derived(frame, suite, name)
    view = frame.select("*", *columns) if columns else frame
    plans = [_plan(expected, name, parameters or {}, missing, view.columns) for expected in suite.expectations]
    asked = [plan for plan in plans if plan.implementation is not None]
    names = {column for plan in asked for column in plan.columns}
    asked_about = view.select(*sorted(names)) if names else view
    if collected:
        asked_about = frame.sparkSession.createDataFrame(asked_about.toArrow(), asked_about.schema)
    found = _run(asked_about, name, asked, context)
    rows = found.rows
    offences = []
    checks = []
    for plan in plans:
        check = _check(plan, found)
        checks.append(check)
        if check.outcome == "failed":
            offences.append(Offence(check, _to_blame(view, plan, name)))
    took_ms = int((time.monotonic() - started) * 1000)
    return Validated(SuiteReport(suite=name, about=suite.about, rows=rows, took_ms=took_ms, checks=tuple(checks)), offences)


def validate_sample(
    frame: DataFrame,
    settings: Settings,
    suite: str = "personalization",
    parameters: Mapping[str, float] | None = None,
    loaded: Suite | None = None,
    context: Any = None,
) -> Validated:
    """Hold at most ``gate.sample_rows`` rows of a frame to a suite of the settings' folder (or to ``loaded``).

    For a stream's micro-batches: the sample is computed once, whatever the suite asks, and not kept.
    """
    sample = frame.limit(settings.gate.sample_rows)
    asked = loaded or load_suite(settings.gate.expectations, suite)
    return validate(sample, asked, suite, parameters, context, collected=True)


# --- what is asked ------------------------------------------------------------------------------------------------------------
@dataclass
class _Plan:
    """An expectation with its limits as numbers, or the reason (``note``) why it has no answer."""

    expected: Expected
    threshold: dict[str, Any]
    columns: tuple[str, ...] = ()
    note: str = ""
    #: great-expectations' class; ``None`` when it cannot even be asked
    implementation: Any = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.expected.kwargs, **self.threshold}


def _derived(frame: DataFrame, suite: Suite, label: str) -> tuple[list[Column], dict[str, str]]:
    """The suite's derived columns that the frame can give, and why it cannot give the others."""
    with contextlib.suppress(AnalysisException):
        every = [F.expr(sql).alias(name) for name, sql in suite.columns.items()]
        # One question for all of them: each is a look through the frame's whole plan.
        frame.select(*every)
        return every, {}
    columns, missing = [], {}
    for name, sql in suite.columns.items():
        try:
            column = F.expr(sql).alias(name)
            frame.select(column)
        except AnalysisException as error:
            # A catalogue without a feature has no column for it; SQL that cannot be parsed is a mistake in the file.
            if error.getCondition() not in ("UNRESOLVED_COLUMN.WITH_SUGGESTION", "UNRESOLVED_COLUMN.WITHOUT_SUGGESTION"):
                raise SuiteError(
                    f"suite {label}, column {name} cannot be computed: {' '.join(str(error).split())[:300]}"
                ) from error
            missing[name] = f"the table lacks a column that {name} is computed from"
            continue
        columns.append(column)
    return columns, missing


def _plan(expected: Expected, suite: str, parameters: Mapping[str, float], missing: dict[str, str], present: list[str]) -> _Plan:
    implementation = _implementation(expected, suite)
    threshold: dict[str, Any] = {}
    note = ""
    for key, value in expected.threshold.items():
        if isinstance(value, dict) and PARAMETER in value:
            number, unknown = _evaluate(str(value[PARAMETER]), parameters)
            if unknown:
                note = f"not known yet: {unknown}"
                # A figure is observed all the same: the next night is held against it.
                if not expected.expect.endswith("_to_be_between"):
                    return _Plan(expected, threshold, note=note)
                continue
            value = number
        threshold[key] = value
    kwargs = expected.kwargs
    columns = (*(kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs), *kwargs.get("column_list", ()))
    for column in columns:
        if column not in present:
            return _Plan(expected, threshold, note=missing.get(column, f"the table has no column {column}"))
    return _Plan(expected, threshold, columns, note, implementation)


def _evaluate(expression: str, parameters: Mapping[str, float]) -> tuple[float | int | None, str]:
    """The number of an arithmetic expression, or what of it is not known."""
    from great_expectations.core.suite_parameters import parse_suite_parameter
    from great_expectations.exceptions import SuiteParameterError

    try:
        return parse_suite_parameter(expression, dict(parameters)), ""
    except (SuiteParameterError, ZeroDivisionError):
        return None, expression


def _implementation(expected: Expected, suite: str) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl

    _load()
    try:
        return get_expectation_impl(expected.expect)
    except ExpectationNotFoundError as error:
        raise SuiteError(f"suite {suite}, expectation {expected.name}: great-expectations has no {expected.expect}") from error


# --- the run --------------------------------------------------------------------------------------------------------------------
_loaded: Any = None


def _load() -> Any:
    """great-expectations, imported when a gate first needs it: it takes seconds."""
    global _loaded
    if _loaded is None:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        _loaded = importlib.import_module("great_expectations")
        importlib.import_module("great_expectations.expectations.core")
    return _loaded


@dataclass
class _Found:
    """By expectation: whether it is met, and great-expectations' result. ``values``: rows with a value, by column."""

    rows: int = 0
    success: dict[str, bool] = field(default_factory=dict)
    result: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)


def _asset(context: Any, suite: str) -> tuple[Any, Any]:
    """The context, and the definition of a batch in it that takes a whole frame."""
    source = context.data_sources.add_spark(suite, persist=False)
    return context, source.add_dataframe_asset(suite).add_batch_definition_whole_dataframe("whole")


def _run(frame: DataFrame, suite: str, plans: list[_Plan], context: Any) -> _Found:
    gx = _load()
    core = importlib.import_module("great_expectations.expectations")
    base = importlib.import_module("great_expectations.expectations.expectation")
    per_value = (base.ColumnMapExpectation, base.ColumnPairMapExpectation, base.MulticolumnMapExpectation)
    figures = [plan for plan in plans if not issubclass(plan.implementation, per_value)]
    values = [plan for plan in plans if issubclass(plan.implementation, per_value)]

    context, whole = _asset(context or open_context(), suite)
    found = _Found()

    def ask(about: str, expectations: dict[str, Any], result_format: str) -> None:
        """Run some expectations by name. A suite is a set: equal ones stand in it once and share their result."""
        by_meaning: dict[str, Any] = {}
        for name, expectation in expectations.items():
            by_meaning.setdefault(_meaning(expectation), expectation).meta["names"].append(name)
        label = f"{suite}: {about}"
        asked = context.suites.add(gx.ExpectationSuite(label, expectations=list(by_meaning.values())))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=label, data=whole, suite=asked))
        results = definition.run(batch_parameters={"dataframe": frame}, result_format=result_format)
        for result in results.results:
            names = result.expectation_config.meta["names"]
            _raise_failure(result, suite, names[0])
            for name in names:
                found.success[name] = bool(result.success)
                if result.result:
                    found.result[name] = dict(result.result)

    counted = sorted({plan.expected.column for plan in plans if plan.expected.column is not None and plan.expected.at_least})
    asides = {_ROWS: core.ExpectTableRowCountToBeBetween(min_value=0, meta={"names": []})}
    for column in counted:
        share = core.ExpectColumnProportionOfNonNullValuesToBeBetween(column=column, min_value=0, meta={"names": []})
        asides[f"{_ROWS} {column}"] = share
    ask("figures", {**_expectations(figures, suite), **asides}, "BASIC")
    found.rows = found.result[_ROWS]["observed_value"]
    for column in counted:
        found.values[column] = round((found.result[f"{_ROWS} {column}"]["observed_value"] or 0) * found.rows)
    if values:
        ask("values", _expectations(values, suite), "BOOLEAN_ONLY")
        failed = [plan for plan in values if not found.success[plan.expected.name]]
        if failed:
            # Elsewhere than in the context that Data Docs are written from: these results hold values of rows.
            context, whole = _asset(open_context(), suite)
            ask("failed values", _expectations(failed, suite), "SUMMARY")
    return found


def _expectations(plans: list[_Plan], suite: str) -> dict[str, Any]:
    built = {}
    for plan in plans:
        try:
            built[plan.expected.name] = plan.implementation(**plan.arguments, meta={"names": []})
        except (ValueError, TypeError) as error:
            raise SuiteError(f"suite {suite}, expectation {plan.expected.name}: {_one_line(error)}") from error
    return built


def _meaning(expectation: Any) -> str:
    """What great-expectations compares when it looks for an equal expectation."""
    what = expectation.dict(exclude={"id", "rendered_content", "notes", "meta"})
    return repr((expectation.expectation_type, sorted(what.items())))


def _raise_failure(result: Any, suite: str, name: str) -> None:
    """An expectation that could not be computed is no answer, neither yes nor no."""
    raised = result.exception_info or {}
    failures = [info for info in ([raised] if "raised_exception" in raised else raised.values()) if info.get("raised_exception")]
    if failures:
        text = _one_line(failures[0].get("exception_message"))
        raise SuiteError(f"suite {suite}, expectation {name} cannot be computed: {text}")


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:300]


def _check(plan: _Plan, found: _Found) -> Check:
    expected = plan.expected
    result = found.result.get(expected.name, {})
    observed = result.get("observed_value")
    note, outcome = plan.note, "met"
    if not note:
        rows = found.rows if expected.column is None else found.values.get(expected.column, found.rows)
        if rows < expected.at_least:
            note = f"{rows} rows: below {expected.at_least} the figure says nothing"
        elif observed is None and "observed_value" in result:
            note = "no row has a value"
        elif not found.success[expected.name]:
            outcome = "failed"
    return Check(
        name=expected.name,
        expectation=expected.expect,
        outcome="skipped" if note else outcome,  # type: ignore[arg-type]
        threshold=expected.threshold if plan.note else plan.threshold,
        reason=expected.reason,
        column=expected.column,
        observed=observed,
        unexpected=result.get("unexpected_count"),
        note=note,
    )


# --- rows to blame ----------------------------------------------------------------------------------------------------------------
def _to_blame(view: DataFrame, plan: _Plan, suite: str) -> DataFrame | None:
    """The rows that break a failed expectation, by its own SQL or by what its type means."""
    expected = plan.expected
    if expected.rows is not None:
        try:
            return view.where(expected.rows)
        except AnalysisException as error:
            raise SuiteError(f"suite {suite}, expectation {expected.name}, rows: {_one_line(error)}") from error
    arguments, kind = plan.arguments, expected.expect
    if kind == "expect_column_values_to_be_unique":
        return _repeated(view, [arguments["column"]])
    if kind == "expect_compound_columns_to_be_unique":
        return _repeated(view, arguments["column_list"])
    if expected.column is None:
        return None
    column = F.col(expected.column)
    if kind == "expect_column_values_to_not_be_null":
        return view.where(column.isNull())
    if kind == "expect_column_values_to_be_in_set":
        return view.where(column.isNotNull() & ~column.isin(*arguments["value_set"]))
    if kind == "expect_column_values_to_match_regex":
        return view.where(column.isNotNull() & ~column.rlike(arguments["regex"]))
    if kind in ("expect_column_values_to_be_between", "expect_column_max_to_be_between", "expect_column_min_to_be_between"):
        outside = F.lit(False)
        if arguments.get("min_value") is not None:
            outside = outside | (column < arguments["min_value"])
        if arguments.get("max_value") is not None:
            outside = outside | (column > arguments["max_value"])
        return view.where(outside)
    return None


def _repeated(view: DataFrame, columns: list[str]) -> DataFrame:
    return view.withColumn("_rows", F.count(F.lit(1)).over(Window.partitionBy(*columns))).where("_rows > 1").drop("_rows")
