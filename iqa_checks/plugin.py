"""The pytest plugin: options, fixtures, one row per cell, the table at the end.

Translates between pytest and the package and does nothing else. Only pytest and the standard
library are imported at the top: a test session without cells must not notice this plugin.

A test that uses the fixture `outcome` is a cell. Its marker says what it claims
(``@pytest.mark.iqa(scenario="nr")``) and `pytest_generate_tests` makes one test per stimulus set,
protocol and strategy. Under xdist the controller holds the broker and shows the table; workers
measure. A worker's row travels as an attribute of its test report.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from iqa_checks.broker import Asker, LocalAsker
    from iqa_checks.cell import Cell, CellResult
    from iqa_checks.gate import Verdict
    from iqa_checks.settings import Settings
    from iqa_checks.stimuli import StimulusSet

EXIT_INFRASTRUCTURE = 10  # an endpoint or a store ended the run; 1 is a failed gate
EXIT_BUDGET = 11
AUTO_WORKERS = 4  # they only do statistics; more would cost start-up and memory for nothing
IMAGES_SEEN = "iqa_images_seen"  # property of a test: an `ImagesSeen` as JSON
_CELL_ID = re.compile(r"\[(fr|nr|difference)-(single|double|multiple)-")
_ASKS = re.compile(rf"{_CELL_ID.pattern}|\[images-\d")  # ids of tests that need the broker
_STATE = pytest.StashKey["_Run"]()
_DEFAULTS: dict[str, Any] = {}  # of our options: a run that changes none is checked when it starts
_ROW = pytest.StashKey[dict[str, Any]]()
_RECORD = pytest.StashKey[dict[str, Any]]()
PLAN = pytest.StashKey[dict[str, Any]]()
EXPERTS = pytest.StashKey[dict[str, Any]]()  # of a test: a `Measured` as plain Python


class CellId(NamedTuple):
    """What distinguishes one cell's test from another's; ``selection`` is '' or "difficult"."""

    scenario: str
    protocol: str
    strategy: str
    stimuli: str
    selection: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, self))


@dataclass
class _Run:
    """This process's part in a run."""

    config: pytest.Config
    asker: LocalAsker | None = None
    start_error: Exception | None = None
    infrastructure_errors: int = 0
    usage_errors: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    planned: list[dict[str, Any]] = field(default_factory=list)
    images_seen: list[dict[str, Any]] = field(default_factory=list)
    experts: list[dict[str, Any]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    rendezvous: str = ""
    serving: bool = False
    marker_error: str = ""
    closed: bool = False
    n_cells: int = 0
    n_at_hand: int = 0
    n_measured: int = 0
    n_skipped: int = 0
    n_deselected: int = 0
    n_left_out: int = 0
    summary: list[str] = field(default_factory=list)
    started_at: float = field(default_factory=time.time)
    stimuli: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return settings_of(self.config)

    @property
    def fatal(self) -> Exception | None:
        """What ended the run: no test after it can be measured."""
        return self.asker.broker.fatal if self.asker is not None else self.start_error

    def close(self, *, finished: bool) -> None:
        """Stop the broker, once."""
        if self.asker is not None and not self.closed:
            self.closed = True
            self.asker.close(finished=finished)

    def open_asker(self) -> LocalAsker:
        """The broker of this run, started when first needed."""
        if self.asker is None:
            try:
                self.asker = self.settings.open_asker()
            except Exception as error:
                self.start_error = error
                raise
        return self.asker


@dataclass(frozen=True)
class Outcome:
    """A measured and judged cell: what a test asserts about."""

    result: CellResult
    verdict: Verdict

    def check(self) -> None:
        """Fail the test, in one readable line, unless the verdict passes."""
        __tracebackhide__ = True
        if not self.verdict.passed:
            pytest.fail(f"{self.result.cell.id}: {self.verdict}", pytrace=False)


# --- options -----------------------------------------------------------------------------------


def _option_names(parser: pytest.Parser) -> set[str]:
    """Options that were there before ours; pytest has no public way to ask."""
    groups = [*getattr(parser, "_groups", ()), getattr(parser, "_anonymous", None)]
    return {name for g in groups for option in getattr(g, "options", ()) for name in option.names()}


def pytest_addoption(parser: pytest.Parser) -> None:
    from iqa_checks.options import OPTIONS

    group = parser.getgroup("iqa", "image quality checks (iqa_checks)")
    taken = _option_names(parser)
    for names, attributes in OPTIONS:
        # --model and --seed may be another plugin's: then only our own spelling is ours
        group.addoption(*(name for name in names if name not in taken), **attributes)
        added = group.options[-1]
        _DEFAULTS[added.dest] = added.default


def settings_of(config: pytest.Config) -> Settings:
    """The options as one record."""
    from iqa_checks.options import settings_from

    return settings_from(config.getoption)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "iqa(scenario, protocols=..., strategies=..., stimuli=..., selection='difficult', "
        "system='best'): a cell of the image quality suite",
    )
    config.addinivalue_line(
        "markers", "experts(scenario=..., stimuli=...): expert metrics on difficult samples"
    )
    config.addinivalue_line(
        "markers", "difficult: left out of a run that does not ask for it (-m, or its file's name)"
    )
    config.stash[_STATE] = run = _Run(config)
    if not _is_worker(config):
        config.pluginmanager.register(_Collector(run), "iqa_checks.collector")
    if _options_given(config) and not _is_worker(config):
        from iqa_checks.errors import IqaChecksError
        from iqa_checks.settings import check

        try:
            check(settings_of(config))
        except IqaChecksError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """In a worker: count for the controller, which collects nothing itself."""
    config = items[0].config if items else None
    if config is not None and _is_worker(config):
        found: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]
        found["iqa_deselected"] = found.get("iqa_deselected", 0) + _n_cells(items)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """``--iqa-list`` and ``--iqa-power``: answer and end, before anything is collected."""
    if config.getoption("iqa_power") is not None:
        return _show_power(config, config.getoption("iqa_power"))
    if config.getoption("iqa_list") is None:
        return None
    from iqa_checks.report.lists import LISTS

    print("\n".join(LISTS[config.getoption("iqa_list")](settings_of(config))))
    return 0


def _show_power(config: pytest.Config, drop: float) -> int:
    from iqa_checks.errors import IqaChecksError
    from iqa_checks.release import power

    try:
        print("\n".join(power(settings_of(config), drop)))
    except IqaChecksError as error:
        print(f"ERROR: {error}")
        return int(pytest.ExitCode.USAGE_ERROR)
    return 0


def _asks_a_model(config: pytest.Config) -> bool:
    """Whether a run is of cells, as far as the command line tells before anything is collected."""
    suites = any("suites" in Path(arg.partition("::")[0]).parts for arg in config.args)
    return suites or _options_given(config)


def _options_given(config: pytest.Config) -> bool:
    return any(config.getoption(name) != default for name, default in _DEFAULTS.items())


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


# --- collection --------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("iqa")
    if marker is None or "cell_id" not in metafunc.fixturenames:
        return
    from iqa_checks.best_system import best_system
    from iqa_checks.datasets import names_for
    from iqa_checks.errors import IqaChecksError
    from iqa_checks.prompts import SCENARIOS, load_strategies
    from iqa_checks.protocols import PROTOCOLS

    try:
        settings = settings_of(metafunc.config)
        known = load_strategies(settings.strategies)
        scenario: Any = str(marker.kwargs.get("scenario"))
        protocols = marker.kwargs.get("protocols", PROTOCOLS)
        strategies = marker.kwargs.get("strategies") or known
        selection = marker.kwargs.get("selection", "")
        if "system" in marker.kwargs:
            _known_in_marker(metafunc, "system", [marker.kwargs["system"]], ["best"])
            system = best_system(settings)
            protocols, strategies = [system.protocol], [system.strategy]
        _known_in_marker(metafunc, "selection", [selection], ["", "difficult"])
        _known_in_marker(metafunc, "scenario", [scenario], SCENARIOS)
        _known_in_marker(metafunc, "protocol", protocols, PROTOCOLS)
        _known_in_marker(metafunc, "strategy", strategies, known)
        ids = [
            CellId(scenario, protocol, strategy, stimuli, selection)
            for stimuli in marker.kwargs.get("stimuli") or names_for(scenario, settings.source)
            for protocol in protocols
            for strategy in strategies
        ]
    except IqaChecksError as error:
        refuse_marker(metafunc, error)
        ids = []
    metafunc.parametrize("cell_id", ids, ids=map(str, ids))


def refuse_marker(metafunc: pytest.Metafunc, why: Exception) -> None:
    """End the run after collection with one line, exit status 4."""
    metafunc.config.stash[_STATE].marker_error = str(why)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A mistake in a suite's marker is the user's: one line, not a traceback of its collection.

    Tests marked ``difficult`` stay only where they are asked for, and the summary says so.
    """
    run = config.stash[_STATE]
    if run.marker_error:
        raise pytest.UsageError(run.marker_error)
    left_out = [item for item in items if not _asked_for(item)]
    if left_out:
        items[:] = [item for item in items if _asked_for(item)]
        run.n_left_out = len(left_out)
        if _is_worker(config):
            config.workeroutput["iqa_left_out"] = len(left_out)  # type: ignore[attr-defined]
        config.hook.pytest_deselected(items=left_out)


def _asked_for(item: pytest.Item) -> bool:
    """Whether a test is to run: one marked ``difficult`` wants its marker or its file named."""
    if item.get_closest_marker("difficult") is None:
        return True
    if re.search(r"(?<!not )\b(difficult|experts)\b", item.config.option.markexpr):
        return True
    folder = item.config.invocation_params.dir
    return any(item.path == folder / arg.partition("::")[0] for arg in item.config.args)


def _n_cells(items: Iterable[pytest.Item]) -> int:
    """Cells among deselected tests; those that run only when asked for are not missing."""
    return sum(_CELL_ID.search(item.nodeid) is not None for item in items if _asked_for(item))


def _known_in_marker(
    metafunc: pytest.Metafunc, what: str, given: Iterable[str], known: Iterable[str]
) -> None:
    from iqa_checks.errors import known_names

    for name in given:
        if name not in known:
            raise known_names(
                f"{what} in the iqa marker of {metafunc.definition.nodeid}:", name, known
            )


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    specs = [getattr(item, "callspec", None) for item in session.items]
    found = [spec.params.get("cell_id") for spec in specs if spec is not None]
    cells = [cell for cell in found if isinstance(cell, CellId)]  # a marker may name none
    run = session.config.stash[_STATE]
    run.n_cells = len(cells)
    run.n_at_hand = _n_at_hand(cells, run) if cells else 0
    asking = [item.nodeid for item in session.items if _ASKS.search(item.nodeid)]
    if asking and not _is_worker(session.config) and not session.config.option.collectonly:
        _announce(session.config, asking)


def _n_at_hand(cells: Sequence[CellId], run: _Run) -> int:
    """Cells that can fail: those of an absent set are skipped, and share no false-alarm rate."""
    from iqa_checks.datasets import n_at_hand
    from iqa_checks.errors import IqaChecksError

    try:
        return n_at_hand([cell.stimuli for cell in cells], run.settings.source)
    except IqaChecksError:  # each cell will say it
        return len(cells)


def _announce(config: pytest.Config, ids: list[str]) -> None:
    """Say what a paid run is about to ask, before it asks; end it here where it cannot."""
    from iqa_checks.errors import IqaChecksError
    from iqa_checks.report.plan import announcement

    settings = config.stash[_STATE].settings
    if config.getoption("iqa_plan") or settings.policy == "replay":
        return
    try:
        settings.check_key()
    except IqaChecksError as error:
        raise pytest.UsageError(str(error)) from None
    names = [name[found.start() + 1 : -1] for name in ids if (found := _ASKS.search(name))]
    try:
        line = announcement(names, settings)
    except IqaChecksError as error:
        line = f"no estimate: {error}"  # the cell that needs it reports it as its own error
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if line and reporter is not None:
        reporter.ensure_newline()
        reporter.write_line(line)


# --- fixtures ----------------------------------------------------------------------------------


@pytest.fixture
def stimuli(cell_id: CellId, pytestconfig: pytest.Config) -> StimulusSet:
    """The stimuli of a cell. Override it to test on a set of your own."""
    from iqa_checks.errors import StimuliAbsent

    run = pytestconfig.stash[_STATE]
    selection: Any = cell_id.selection or "uniform"
    key = (cell_id.stimuli, cell_id.scenario, selection)
    if key not in run.stimuli:
        try:
            scenario: Any = cell_id.scenario
            run.stimuli[key] = run.settings.stimuli(cell_id.stimuli, scenario, selection)
        except StimuliAbsent as error:
            run.stimuli[key] = error
    if isinstance(run.stimuli[key], StimuliAbsent):
        pytest.skip(str(run.stimuli[key]))
    found: StimulusSet = run.stimuli[key]
    return found


@pytest.fixture(scope="session")
def observer_model(pytestconfig: pytest.Config) -> Iterator[Asker | None]:
    """The model under test. Override it to ask something that is no endpoint."""
    run = pytestconfig.stash[_STATE]
    if pytestconfig.getoption("iqa_plan"):
        yield None
    elif _is_worker(pytestconfig):
        remote = _connect(pytestconfig)
        yield remote
        remote.close()
    else:
        yield run.open_asker()


@pytest.fixture
def cell(cell_id: CellId, stimuli: StimulusSet, pytestconfig: pytest.Config) -> Cell:
    """What to measure. Override it to change seed, scaling or repeats of some cells."""
    from iqa_checks.cell import Cell

    settings = pytestconfig.stash[_STATE].settings
    scenario: Any = cell_id.scenario
    protocol: Any = cell_id.protocol
    return Cell(
        stimuli,
        scenario,
        protocol,
        cell_id.strategy,
        preset=settings.preset,
        scaling=settings.scaling,
        seed=settings.seed,
        repeats=settings.repeats,
        soft=settings.soft,
        strategies=settings.strategies,
        selection="difficult" if cell_id.selection or settings.source.difficult else "uniform",
    )


def _name_of(asked: Asker | str, run: _Run) -> str:
    """Who answered: the run's model, or what a suite put in its place."""
    from iqa_checks.broker import RemoteAsker

    if isinstance(asked, str):
        return asked
    own = asked is run.asker or isinstance(asked, RemoteAsker)
    return run.settings.model if own else str(getattr(asked, "name", type(asked).__name__))


@pytest.fixture
def outcome(cell: Cell, observer_model: Asker | None, request: pytest.FixtureRequest) -> Outcome:
    """The cell, asked and judged. A failure to ask is an error of the test, not a failure."""
    from iqa_checks.baseline import SavedCell, check_cell, record_of
    from iqa_checks.cell import check_images, run_cell
    from iqa_checks.errors import ExemplarsAbsent, TooManyImages
    from iqa_checks.gate import judge
    from iqa_checks.release import baseline_of, properties_of
    from iqa_checks.report.row import row_of

    run = request.config.stash[_STATE]
    settings = run.settings
    asked = settings.model if observer_model is None else _name_of(observer_model, run)
    try:
        if asked == settings.model:
            check_images(cell, settings.spec)
    except (TooManyImages, ExemplarsAbsent) as error:
        pytest.skip(str(error))
    if observer_model is None:
        from iqa_checks.report.plan import plan_line

        request.node.stash[PLAN] = plan_line(cell, settings.spec).plain()
        pytest.skip("planned, not asked")
    baseline = baseline_of(settings)
    if baseline is not None:
        check_cell(cell, baseline)
    gate = settings.gate(cell, max(1, run.n_at_hand))
    try:
        result = run_cell(cell, observer_model)
    except ExemplarsAbsent as error:
        pytest.skip(str(error))
    verdict = judge(result, gate)
    row = row_of(result, verdict, asked)
    record = record_of(result)
    request.node.user_properties += properties_of(SavedCell(row, record), baseline)
    request.node.stash[_ROW], request.node.stash[_RECORD] = row.plain(), record.plain()
    return Outcome(result, verdict)


# --- reports -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "setup":
        report.iqa_row = item.stash.get(_ROW, None)
        report.iqa_record = item.stash.get(_RECORD, None)
        report.iqa_plan = item.stash.get(PLAN, None)
        report.iqa_experts = item.stash.get(EXPERTS, None)
    asking = {"cell_id", "observer_model", "expert_set"} & set(getattr(item, "fixturenames", ()))
    if call.excinfo is not None and asking:
        from iqa_checks.errors import (
            InfrastructureError,
            IqaChecksError,
            RequestFailed,
            StimulusError,
            StoreError,
            UsageError,
        )

        error = call.excinfo.value
        if isinstance(error, IqaChecksError):
            report.longrepr = f"{type(error).__name__}: {error}"
            report.iqa_infrastructure = isinstance(error, (InfrastructureError, StoreError))
            report.iqa_usage = isinstance(error, (UsageError, StimulusError))
            ends_run = report.iqa_infrastructure or report.iqa_usage
            if ends_run and not isinstance(error, RequestFailed):
                item.session.shouldfail = f"the run ends: {error}"
    return report


class _Collector:
    """Gathers what the tests report, in the process that shows the summary."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        run = self.run
        row, plan = getattr(report, "iqa_row", None), getattr(report, "iqa_plan", None)
        if row is not None:
            run.n_measured += 1
            if row["cell"] not in run.records:  # two suites may measure one cell
                run.rows.append(row)
                run.records[row["cell"]] = report.iqa_record
        if getattr(report, "iqa_experts", None) is not None:
            run.experts.append(report.iqa_experts)
        if report.when == "call":
            found = [value for name, value in report.user_properties if name == IMAGES_SEEN]
            run.images_seen += map(json.loads, map(str, found))
        if plan is not None:
            run.planned.append(plan)
        elif report.skipped and _CELL_ID.search(report.nodeid):
            skipped = report.longrepr
            reason = str(skipped[2] if isinstance(skipped, tuple) else skipped)
            for line in reason.removeprefix("Skipped: ").splitlines():
                run.absent[line] = report.nodeid
            run.n_skipped += 1
        run.infrastructure_errors += bool(getattr(report, "iqa_infrastructure", False))
        run.usage_errors += bool(getattr(report, "iqa_usage", False))
        if run.fatal is not None and self.session is not None and not self.session.shouldfail:
            self.session.shouldfail = f"the run ends: {run.fatal}"

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self.run.n_deselected += _n_cells(items)

    def pytest_keyboard_interrupt(self) -> None:
        """Stop asking at once; what has been answered is kept, and the next run goes on."""
        self.run.close(finished=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    run = session.config.stash[_STATE]
    whole = (
        exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        and not (session.shouldfail or session.shouldstop)
        and not run.infrastructure_errors
    )
    run.close(finished=whole)
    if run.rendezvous:
        Path(run.rendezvous).unlink(missing_ok=True)
    if (run.rows or run.experts) and not _is_worker(session.config):
        session.exitstatus = _conclude(run, int(exitstatus))
    if run.fatal is not None or run.infrastructure_errors:
        session.exitstatus = _exit_status_of(run.fatal)
    elif run.usage_errors:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def _exit_status_of(error: Exception | None) -> int:
    """Exit codes by cause, for whoever reads them in CI."""
    from iqa_checks.errors import BudgetSpent, UsageError

    if isinstance(error, UsageError):
        return int(pytest.ExitCode.USAGE_ERROR)
    return EXIT_BUDGET if isinstance(error, BudgetSpent) else EXIT_INFRASTRUCTURE


def _conclude(run: _Run, exitstatus: int) -> int:
    """Compare, write and save a run that measured something; returns its exit status."""
    from iqa_checks.baseline import partial_reasons
    from iqa_checks.release import conclude, run_of
    from iqa_checks.report import difficult

    settings, config = run.settings, run.config
    partial = partial_reasons(
        exit_status=exitstatus,
        expected=run.n_cells - run.n_skipped,
        measured=run.n_measured,
        deselected=run.n_deselected,
        limit=settings.source.limit,
        failed=[row["cell"] for row in run.rows if not row["passed"]],
    )
    whole = run_of(run.rows, run.records, settings, run.asker, started_at=run.started_at,
                   partial=partial, folder=config.rootpath,
                   experts=difficult.in_order(run.experts))  # fmt: skip
    concluded = conclude(
        whole,
        settings,
        save_as=config.getoption("iqa_save"),
        allow_partial=config.getoption("iqa_save_partial"),
        environment=os.environ,
    )
    run.summary += concluded.lines
    codes = {"usage": int(pytest.ExitCode.USAGE_ERROR), "worse": 1, "": 0}
    return exitstatus or codes[concluded.problem]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    run = config.stash[_STATE]
    if _is_worker(config) or not (
        run.rows or run.planned or run.experts or run.absent or run.images_seen or run.fatal
    ):
        return
    from iqa_checks.multi_image import ImagesSeen
    from iqa_checks.report.images_table import images_lines
    from iqa_checks.report.summary import plan_lines, summary_lines

    settings = run.settings
    totals = run.asker.broker.totals if run.asker else None
    terminalreporter.section("image quality")
    color = terminalreporter.hasmarkup
    for line in summary_lines(
        run.rows, run.absent, settings, totals, color=color, experts=run.experts
    ):
        terminalreporter.write_line(line)
    for line in images_lines([ImagesSeen.from_plain(found) for found in run.images_seen]):
        terminalreporter.write_line(line)
    for line in plan_lines(run.planned):
        terminalreporter.write_line(line)
    if run.n_left_out:
        terminalreporter.write_line(
            f"not run: {run.n_left_out} tests on difficult samples (Tables 2 and 3); "
            "-m difficult runs them, -m experts those that need no model"
        )
    for line in run.summary:
        terminalreporter.write_line(line)


# --- xdist -------------------------------------------------------------------------------------


class _Xdist:
    """Hooks that exist only where pytest-xdist is loaded."""

    @pytest.hookimpl(wrapper=True)
    def pytest_xdist_auto_num_workers(
        self, config: pytest.Config
    ) -> Generator[None, int | None, int | None]:
        """``-n auto``: few where the run waits for a model, as xdist has it elsewhere."""
        found = yield
        return min(found, AUTO_WORKERS) if found and _asks_a_model(config) else found

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to look for the broker; nothing is opened yet."""
        config = node.config
        run = config.stash[_STATE]
        if not run.rendezvous:
            name = f"iqa-{os.getpid()}-{secrets.token_hex(8)}.json"
            run.rendezvous = str(Path(tempfile.gettempdir()) / name)
        node.workerinput["iqa_rendezvous"] = run.rendezvous
        node.workerinput["iqa_local"] = bool(getattr(node.gateway.spec, "popen", False))

    def pytest_testnodedown(self, node: Any) -> None:
        """What a worker left out of its collection; all workers leave out the same."""
        run = node.config.stash[_STATE]
        left_out = getattr(node, "workeroutput", {}).get("iqa_deselected", 0)
        run.n_deselected = max(run.n_deselected, left_out)
        run.n_left_out = getattr(node, "workeroutput", {}).get("iqa_left_out", run.n_left_out)

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Start the broker as soon as a worker has collected a cell."""
        run = node.config.stash[_STATE]
        if run.serving or not any(_ASKS.search(name) for name in ids):
            return
        run.serving = True
        run.n_cells = sum(_CELL_ID.search(name) is not None for name in ids)
        key = secrets.token_hex(32)
        where: dict[str, Any] = {"key": key}
        try:
            if not node.config.getoption("iqa_plan"):
                _announce(node.config, ids)
                where["port"] = run.open_asker().listen(key)
        except Exception as error:
            where = {"error": type(error).__name__, "message": str(error)}
        descriptor = os.open(run.rendezvous + ".part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(where, file)
        os.replace(run.rendezvous + ".part", run.rendezvous)


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    if manager.hasplugin("xdist") and not manager.hasplugin("iqa_checks.xdist"):
        manager.register(_Xdist(), "iqa_checks.xdist")


def _connect(config: pytest.Config) -> Any:
    """A worker's way to the broker of the controller."""
    from iqa_checks.broker import RemoteAsker, error_named
    from iqa_checks.errors import InfrastructureError, UsageError

    given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
    if not given.get("iqa_local"):
        raise UsageError(
            "workers on other hosts cannot reach the run's broker; run workers on this machine "
            "(-n 8) and scale the model server instead: give several --iqa-base-url"
        )
    path = Path(given["iqa_rendezvous"])
    deadline = time.monotonic() + 60
    while not path.exists():
        if time.monotonic() > deadline:
            raise InfrastructureError("the controller's broker did not start within 60 s")
        time.sleep(0.02)
    where = json.loads(path.read_text())
    if "error" in where:
        raise error_named(where["error"], where["message"])
    return RemoteAsker(where["port"], where["key"])
