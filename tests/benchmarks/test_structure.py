"""The check of the structure reads its own table, and its lists name files that exist."""

import pytest

from benchmarks.structure import GOALS, ROOT, Tree, fragments, missed, missing_files, numbers, repeated_classes


@pytest.mark.parametrize(
    ("cell", "figures"),
    [
        ("20 % (480 of 2,391)", [20]),
        ("10 (1,392 lines)", [10]),
        ("42, 14, 159, 1", [42, 14, 159, 1]),
        ("3, 6-10, 6", [3, 10, 6]),
        ("4,500", [4500]),
        ("13.6 min", [13.6]),
        ("", []),
    ],
)
def test_numbers_of_a_cell_leave_out_those_in_parentheses(cell: str, figures: list[float]) -> None:
    assert numbers(cell) == figures


def test_a_row_is_missed_where_any_figure_is_above_its_goal_or_absent() -> None:
    assert missed(GOALS) == []
    name = "private helpers called once"
    assert missed({**GOALS, name: "11 % (260 of 2,391)"}) == []
    assert missed({**GOALS, name: "13 % (300 of 2,391)"}) == [f"{name}: 13 % (300 of 2,391), at most 12 %"]
    name = "data/: modules, layers, imports, upward"
    assert missed({**GOALS, name: "19, 7, 56, 1"}) == [f"{name}: 19, 7, 56, 1, at most 20, 7, 60, 0"]
    assert missed({**GOALS, name: "19, 7"}) == [f"{name}: 19, 7, at most 20, 7, 60, 0"]
    assert missed({**GOALS, "`make test`, two idle cores": ""}) == [
        "`make test`, two idle cores: not measured, at most 9 min"
    ]


def test_listed_files_exist() -> None:
    assert missing_files(ROOT) == []


def test_goals_of_names_and_docstrings_stay_met() -> None:
    tree = Tree.read(ROOT)
    assert fragments(tree) == []
    assert len(repeated_classes(tree)) <= int(GOALS["class names defined more than once"])
