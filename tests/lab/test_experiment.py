"""The experiment in its reduced form: a pair of kernels that was built before, one fragmented state, one
overflow.

Where no such kernels are (stackfit lab build --variant 8k, --variant 4k; STACKFIT_LAB_BUILDS names the
directory)
the boots are skipped. What does not need them runs everywhere.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jsonschema
import pytest

from stackfit.image.model import InputError
from stackfit.lab.build import default_output, load_built
from stackfit.lab.cases import Case, fork_cases, reclaim_cases, storms
from stackfit.lab.claims import claims
from stackfit.lab.experiment import Experiment, Plan
from stackfit.report.experiment import experiment_json

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "schemas" / "stackfit.experiment-1.json"


def test_no_two_cases_have_one_name() -> None:
    kernels = ("8k", "4k")
    names = [case.name for case in [*fork_cases(kernels), *reclaim_cases(kernels)]]
    names += [storm.name for storm in storms(kernels)]
    assert len(set(names)) == len(names)
    assert "8k-32-anon-process-boost" in names and "4k-64-cache-thread" in names


def test_words_of_a_case() -> None:
    words = Case("8k", 32, "anon", "process", "threads").words
    assert words == {"kind": "process", "state": "anon", "leave": 1024, "threads": "default"}
    assert Case("8k", 64, "grow", "process").words["load"] == "cycle"


@pytest.fixture(scope="module")
def builds() -> Path:
    directory = Path(os.environ.get("STACKFIT_LAB_BUILDS", "") or default_output())
    for name in ("8k", "4k"):
        try:
            load_built(directory, name)
        except InputError as error:
            pytest.skip(f"{error}")
    for tool in ("qemu-system-i386", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    return directory


@pytest.fixture(scope="module")
def experiment(builds: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Every second page of anonymous memory taken, 32 MB, processes; and overflows of the 4 KiB stacks."""

    class Reduced(Experiment):
        def cases(self) -> list[Case]:
            return [Case(kernel, 32, "anon", "process") for kernel in self.plan.kernels]

    plan = Plan(builds, tmp_path_factory.mktemp("experiment"), ("8k", "4k"), (32,), 1, 1, ("forks",))
    found = Reduced(plan)
    found.predict()
    found.run()
    return found


def test_predictions_hold(experiment: Experiment) -> None:
    rows = experiment.rows()
    assert [row.case.kernel for row in rows] == ["8k", "4k"]
    for row in rows:
        assert abs(row.off) <= 0.15, (row.case, row.predicted, row.outcomes)
        assert row.order == row.predicted.failed_order == (1 if row.case.kernel == "8k" else 0)
    answers = {claim.text[:8]: claim.answer for claim in claims(rows, (), ())}
    assert answers["two-page"] == "holds"
    document = experiment_json(list(experiment.kernels.values()), rows, (), (), claims(rows, (), ()))
    jsonschema.validate(json.loads(json.dumps(document)), json.loads(SCHEMA.read_text()))


def test_no_run_without_a_prediction(experiment: Experiment) -> None:
    (experiment.plan.output / "predictions.json").unlink()
    with pytest.raises(InputError, match="it would come after the run"):
        experiment.run()
