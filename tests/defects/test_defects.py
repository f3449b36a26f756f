"""Tests that would notice nothing prove nothing: known breakages, each with the test that notices it."""

import re

import pytest

from tests.defects import catalog, run
from tests.defects.catalog import ROOT, Defect

DEFECTS = catalog.defects()


def _name(defect: Defect) -> str:
    return defect.name


def test_there_are_enough_of_them() -> None:
    assert len(DEFECTS) >= 25


@pytest.mark.parametrize("defect", DEFECTS, ids=_name)
def test_a_defect_still_applies_and_its_test_is_there(defect: Defect) -> None:
    source = (ROOT / defect.file).read_text()
    assert defect.applied(source) != source
    path, _, test = defect.caught_by.partition("::")
    assert re.search(rf"\b(def|fn) {test}\(", (ROOT / path).read_text()), defect.caught_by


@pytest.mark.parametrize("defect", DEFECTS, ids=_name)
def test_a_defect_was_caught_as_it_is_now(defect: Defect) -> None:
    result = catalog.results().get(defect.name)
    assert result is not None, "not tried: make defects"
    assert result.digest == defect.digest, "it has changed since it was tried: make defects"
    assert result.caught


def test_the_page_is_what_the_results_say() -> None:
    assert catalog.PAGE.read_text() == catalog.page(), "docs/defects.md is stale: make docs"


@pytest.mark.long
def test_every_defect_is_caught() -> None:
    assert run.main([]) == 0
