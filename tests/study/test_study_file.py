"""The file of a study: what it says is read, and what makes no sense is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitloop.errors import BitloopError, FormatError, NetworkError, UsageError
from bitloop.network.settings import SCRATCH
from bitloop.network.zoo import ZOO
from bitloop.study.experiment.file import StudyFile, read_study
from bitloop.study.experiment.networks import plans_of

STUDIES = sorted((Path(__file__).resolve().parents[2] / "studies").glob("*.toml"))
GOOD = """
title = "t"
[[network]]
name = "a"
source = "mlp8k"
[[network]]
name = "b"
architecture = "dense8-dense10"
seeds = [3, 4]
train = { epochs = 2, loss = "squared-error" }
qat = { weights = "int4", set = ["dense1.weights=int8"] }
[[sweep]]
name = "s"
networks = ["a"]
ints = "2-3"
[[comparison]]
name = "c"
entries = [{ network = "b" }]
"""


SEARCH = 'title = "t"\n[[search]]\nname = "q"\nnetworks = ["a"]\n'


def written(folder: Path, text: str) -> StudyFile:
    path = folder / "study.toml"
    path.write_text(text)
    return read_study(path)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    study = written(tmp_path, GOOD)
    assert [entry.name for entry in study.network] == ["a", "b"]
    assert study.margins == (0.3,)
    plain, first, second = plans_of(study, "digits")
    assert (plain.label, plain.source) == ("a", "mlp8k")
    assert (first.label, second.label) == ("b-seed3", "b-seed4")
    assert first.settings is not None
    assert (first.settings.seed, first.settings.epochs, first.settings.loss) == (3, 2, "squared_error")
    assert first.recipe is not None
    assert (first.recipe.weights, first.recipe.biases, first.start) == ("int4", "fp32", SCRATCH)
    assert first.recipe.overrides == ("dense1.weights=int8",)


def test_a_networks_own_settings_and_recipe_are_the_zoos(tmp_path: Path) -> None:
    study = written(
        tmp_path, "t = 1\n".replace("t = 1", 'title = "t"') + '[[network]]\nname = "n"\narchitecture = "cnn6k"\n'
    )
    (plan,) = plans_of(study, "mnist")
    assert plan.settings == ZOO["cnn6k"].settings
    assert plan.recipe == ZOO["cnn6k"].recipe
    assert plan.recipe is not None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "t"', 'titel = "t"', "study.toml has an unknown key 'titel'; did you mean title"),
        ('title = "t"', "", "study.toml lacks 'title'"),
        ('title = "t"', "title = 3", "study.toml.title is 3; a text is expected"),
        ('title = "t"', 'title = "t"\nmargins = [0]', "between 0 and 100"),
        ('title = "t"', 'title = "t"\nmargins = []', "one at least"),
        ('title = "t"', 'title = "t"\nlimit = true', "limit is True; a whole number is expected"),
        ('title = "t"', 'title = "t"\ndataset = "cifar"', "unknown data set 'cifar'; there are mnist, digits"),
        ('title = "t"', 'title = "t"\nsearch = 3', "study.toml.search is 3; a list is expected"),
        ("epochs = 2", "epoch = 2", r"network\[1\].train has an unknown key 'epoch'; did you mean epochs"),
        ("epochs = 2", 'epochs = "2"', r"network\[1\].train.epochs is '2'; a whole number is expected"),
        ("seeds = [3, 4]", "seeds = [3, 3]", "network 'b' needs seeds, each once"),
        ('name = "b"', 'name = "a"', "network 'a' is there twice"),
        ('name = "c"', 'name = "s"', "section 's' is there twice"),
        ('name = "c"', 'name = "../c"', "section '../c': a name is"),
        ('source = "mlp8k"', "", "network 'a' needs either a 'source'"),
        ('source = "mlp8k"', 'source = "mlp8k"\nseeds = [1, 2]', "network 'a' is there already"),
        ('networks = ["a"]', 'networks = ["z"]', "'s' names 'z'; there are a, b"),
        ('networks = ["a"]', "networks = []", "'s' names nothing"),
        ('networks = ["a"]', 'networks = ["a"]\nof = ["all"]', "'of' in 's' names 'all'; there are weights, biases"),
        ('networks = ["a"]', 'networks = ["a"]\nconfirm = "some"', "'confirm' in 's' names 'some'"),
        ('ints = "2-3"', 'ints = "2-99"', "widths of integers from 2 to 99"),
        ('ints = "2-3"', 'ints = "x"', "ints are given as a range"),
        ('ints = "2-3"', "", "there is nothing to sweep"),
        ('{ network = "b" }', '{ network = "z" }', "'c' names 'z'"),
        ('{ network = "b" }', "", "'c' names nothing"),
        ('title = "t"', 'title = "t"\n[test]\nreason = "r"\nsections = ["z"]', "'sections' of test names 'z'"),
        ('title = "t"', 'title = "t"\n[[device]]\nurl = "u"\nsplit = "test"', "'split' of u names 'test'; there are"),
        ('title = "t"', f"{SEARCH}candidates = 0", "'candidates' in 'q' is 0; it is at least 1"),
        ('title = "t"', f"{SEARCH}trials = 0", "'trials' in 'q' is 0"),
        ('title = "t"', f'{SEARCH}method = "luck"', "'method' in 'q' names 'luck'; there are auto"),
        ('networks = ["a"]', 'networks = ["a"]\ncandidates = -1', "'candidates' in 's' is -1"),
        ('title = "t"', "title = ", "is no TOML"),
    ],
)
def test_what_makes_no_sense_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(UsageError, match=message):
        written(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('weights = "int4"', 'weights = "int99"', FormatError),
        ("epochs = 2", "epochs = 0", UsageError),
        ("dense8-dense10", "dense8-dens10", NetworkError),
        ("squared-error", "cubed-error", UsageError),
    ],
)
def test_what_a_network_cannot_be_is_told_before_training(
    old: str, new: str, error: type[BitloopError], tmp_path: Path
) -> None:
    study = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(error):
        plans_of(study, "digits")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_study(tmp_path / "nosuch.toml")


def test_a_device_on_test_runs_only_what_the_opening_names(tmp_path: Path) -> None:
    opened = '[test]\nreason = "r"\nsections = ["c"]\n[[device]]\nurl = "u"\nsplit = "test"\n'
    assert written(tmp_path, GOOD + opened + 'sections = ["c"]\n').device[0].split == "test"
    with pytest.raises(UsageError, match="'sections' of u on test names 's'"):
        written(tmp_path, GOOD + opened)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_committed_studies_can_be_read(path: Path) -> None:
    study = read_study(path)
    assert plans_of(study, "mnist")
    for sweep in study.sweep:
        for of in sweep.of:
            assert sweep.grid(of).specs()


def test_there_are_committed_studies() -> None:
    assert len(STUDIES) >= 5
