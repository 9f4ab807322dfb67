"""What the documentation says of files, modules, options and licences is so."""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from benchmarks import gpu, skills, trackssm_table
from benchmarks.__main__ import brief_table, table, with_table
from docs.generate import PAGES, renewed
from train_jobs.so101_policy.evaluate import share_of

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMAND = re.compile(r"python -m ([a-z_0-9.]+)((?:[^`|\n#]|\\\n)*)")
FOLDERS = {"models", "actors", "data_jobs", "robot", "serve", "train_jobs", "benchmarks", "tests", "docs"}


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name):
    page = ROOT / "docs" / name
    assert page.read_text() == renewed(page, PAGES[name]()), "run `make docs`"


def test_nothing_that_is_installed_is_under_the_gpl():
    packages = (ROOT / "docs" / "licences.md").read_text().partition("### Packages")[2]
    rows = [line.split("|")[1].strip() for line in packages.splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert not [row for row in rows if re.search(r"\bA?GPL", row) or "Affero" in row]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


@cache
def words_of(module):
    """Everything that stands in the source of a module's package, where options are declared."""
    spec = importlib.util.find_spec(module)
    files = Path(spec.origin).parent.glob("*.py") if spec.submodule_search_locations else [Path(spec.origin)]
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_commands_name_modules_and_options_that_exist(page):
    for module, rest in COMMAND.findall(page.read_text()):
        if module.split(".")[0] not in FOLDERS:
            continue
        assert importlib.util.find_spec(module), f"{page.name} names {module}"
        for option in re.findall(r"(?<!\S)--([a-z][a-z-]+)", rest):
            found = words_of(module)
            declared = option in found or option.replace("-", "_") in found
            assert declared, f"{page.name}: {module} has no --{option}"


@pytest.mark.parametrize(("page", "made"), [("README.md", brief_table), ("docs/measured.md", table)])
def test_tables_of_measurements_are_what_was_measured(page, made):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text == with_table(ROOT / page, made()), "run `python -m benchmarks`, which writes both"


def test_the_table_of_a_gpu_is_what_was_measured():
    text = gpu.PAGE.read_text(encoding="utf-8")
    assert text == with_table(gpu.PAGE, gpu.table(), gpu.BEGIN), "run `make bench-gpu`"


def test_tables_of_motion_models_are_what_compare_measured():
    text = trackssm_table.PAGE.read_text(encoding="utf-8")
    assert text == trackssm_table.renewed(), "run `python -m benchmarks.trackssm_table`"
    for name in trackssm_table.TABLES:
        assert text.count(trackssm_table.made(name)) == 1


def test_figures_of_the_skills_are_those_of_the_weights_that_ship():
    told = skills.recorded()
    for name, part in skills.parts(skills.Counts(1, 1, 1, 1, 1), None).items():
        assert told[name]["weights"] == skills.fingerprints(part.weights), f"{name}: run `python -m benchmarks.skills`"
    text = skills.PAGE.read_text(encoding="utf-8")
    assert text == with_table(skills.PAGE, skills.tables(told), skills.BEGIN), "run `python -m benchmarks.skills`"
    seen, lifted = told[skills.SEGMENTATION]["found"], told[f"{skills.LIFT}policy"]["found"][0]
    cards = [(ROOT / "models" / "pretrained" / f"so101_{name}.md").read_text() for name in ("seg", "lift")]
    assert f"mIoU {seen['640x480']['mIoU']:.3f} at 640 × 480 and {seen['84x84']['mIoU']:.3f} at 84 × 84" in cards[0]
    assert f"{share_of(lifted['won'], lifted['of'])} episodes" in cards[1]
