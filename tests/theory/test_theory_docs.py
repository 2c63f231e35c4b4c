"""The pages of docs/theory: their examples run, their links lead somewhere."""

import doctest
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "theory").glob("*.md"))


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def long_where_it_is(page):
    return pytest.param(page, marks=pytest.mark.long) if page.name == "convolutions.md" else page


@pytest.mark.parametrize("page", list(map(long_where_it_is, PAGES)), ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page):
    assert doctest.testfile(str(page), module_relative=False).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    for target, _, anchor in re.findall(r"\]\(([\w./]*)(#?)([\w-]*)\)", page.read_text()):
        other = page.parent / target if target else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), (target, anchor)


def test_every_page_is_listed():
    listed = set(re.findall(r"\((\w+\.md)\)", (PAGES[0].parent / "README.md").read_text()))
    assert listed == {page.name for page in PAGES} - {"README.md"}
