"""What the first line of a CSV file is taken for, and what separates the fields."""

import pytest

ROWS = "".join(f"{i},{i % 3},{i % 5}\n" for i in range(40))


# `?` and `5%` are what the columns below may hold, as `1.2` is.
@pytest.mark.parametrize(
    "field", ["NA", "?", "-", "n/a", "5%", "True", '"1,5"', "$5", "1 000", "nan", "1e999"]
)
def test_a_first_row_with_a_gap_or_a_foreign_number_is_data(load, field):
    found = field.strip('"')
    with pytest.raises(ValueError, match=r"line 1: expected the names .*`header=False`") as caught:
        load(f"1.2,{field},3.4\n" + ROWS)
    assert f"found the values '1.2', '{found}', '3.4'" in str(caught.value)
    assert load(f"1.2,{field},3.4\n" + ROWS, header=True).columns == ["1.2", found, "3.4"]


@pytest.mark.parametrize("names", ["level,2019,2020", "Na,K,Cl", "level,-,?", "5%,mean,95%"])
def test_names_with_a_word_among_them_are_names(load, names):
    task = load(f"{names}\n" + ROWS)
    assert task.columns == names.split(",")


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ("a, in m;b, in s\n1;2\n3;4\n", "semicolons"),
        ("Datum;Temp, C\n2020-01-01;1\n2020-01-02;1,5\n", "semicolons"),
        ("Datum;Temp\n2020-01-01;1,5\n2020-01-02;2,5\n", "semicolons"),
        ("a title, with a comma\na;b\n1;2\n" + "3;4\n" * 20, "semicolons"),
        ('a\tb\n"1"\t"x, y"\n', "tabs"),
        ("a  b\n1   2\n3  40\n", "spaces"),
        ("day a\n2020-01-01 1\n", "spaces"),
        ("What I measured in 2020\na,b\n1,2\n", None),
        ("# made by x; do not edit\na,b\n1,2\n", None),
        ("mean temp in C\n1\n2,3\n", None),
        ("mean temp in C\n1 \n2 ,3\n", None),
        ("day,note\n2020-01-01 10:00:00,x;y\n2020-01-01 11:00:00\n", None),
        ("price of it all\n1 000 $\n2 000\n", None),
        ("a,b\n1,one and two\n2\n", None),
        ("length\n3 apples\n4 pears\n", None),
        ("two words\nx y\n", None),
    ],
)
def test_the_separator_is_judged_by_the_data(load, content, separator):
    with pytest.raises(ValueError, match="no column 'absent'") as caught:
        load(content, target="absent")
    _, said, hint = str(caught.value).partition("seem to be separated by ")
    assert hint.startswith(f"{separator}:") if separator else not said


def test_the_separator_of_a_file_without_names(load):
    for separator, name in ((";", "semicolons"), (" ", "spaces")):
        with pytest.raises(ValueError, match=f"no column of numbers.*separated by {name}"):
            load(f"1{separator}2\n3{separator}4\n", header=False)
