"""Contents of CSV files."""

import math


def lines(field, count=40):
    return "".join(f"{field(i)}\n" for i in range(count))


WAVE = "date,wave,level\n" + lines(lambda i: f"2020-{i},{math.sin(i / 9)},{i * 0.5}", 400)
NUMERIC = ["wave", "level"]
