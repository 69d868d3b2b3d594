"""Configurations to begin with: listed, printed, and each of them good."""

import tomllib
from pathlib import Path

CONFIGS = Path(__file__).parents[3] / "configs"


def test_all_are_listed_each_with_what_it_is_for(say):
    said = say("examples", "--json")
    listed = {one["name"]: one["about"] for one in said.json["examples"]}
    assert listed.keys() == {path.stem for path in CONFIGS.glob("*.toml")}
    assert listed["sama"] == "Sama, for real"
    assert all(listed.values())
    assert "bulksubmit examples NAME" in say("examples").out


def test_one_is_printed_byte_by_byte(say):
    for path in CONFIGS.glob("*.toml"):
        said = say("examples", path.stem)
        assert (said.code, said.out) == (0, path.read_text())
        assert tomllib.loads(said.out)
    assert say("examples", "sama.toml", "--json").json["text"] == (CONFIGS / "sama.toml").read_text()


def test_a_misspelt_name_is_told_the_nearest(say):
    said = say("examples", "smaa")
    assert said.code == 2
    assert "did you mean 'sama'?" in said.err
