"""TPC-H's queries with other literals at every repetition, as the specification's parameters allow, so that no result that
depends on them can be kept."""

import pathlib
import random
import re

HERE = pathlib.Path(__file__).resolve().parent
QUERIES = HERE.parent / "tests" / "tpch"

REGIONS = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"]
NATIONS = [
    ("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0), ("FRANCE", 3),
    ("GERMANY", 3), ("INDIA", 2), ("INDONESIA", 2), ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2), ("JORDAN", 4), ("KENYA", 0),
    ("MOROCCO", 0), ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2), ("ROMANIA", 3), ("SAUDI ARABIA", 4), ("VIETNAM", 2),
    ("RUSSIA", 3), ("UNITED KINGDOM", 3), ("UNITED STATES", 1),
]  # fmt: skip
TYPES = [
    ["STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"],
    ["ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"],
    ["TIN", "NICKEL", "BRASS", "STEEL", "COPPER"],
]
CONTAINERS = [["SM", "LG", "MED", "JUMBO", "WRAP"], ["CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM"]]
SEGMENTS = ["AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY", "HOUSEHOLD"]
MODES = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"]
COLORS = ["almond", "azure", "blush", "chocolate", "cream", "forest", "green", "honeydew", "ivory", "lime", "navy", "olive"]
WORDS = [["special", "pending", "unusual", "express"], ["packages", "requests", "accounts", "deposits"]]


def text(number: int) -> str:
    return re.sub(r"^--.*\n", "", (QUERIES / f"q{number:02}.sql").read_text()).rstrip().rstrip(";")


def with_literals(number: int, seed: int, scale: float = 1.0) -> str:
    """Query `number` with the literals of `seed`; the same seed gives the same text."""
    rng = random.Random(seed * 100 + number)
    sql = text(number)
    for old, new in _changes(number, rng, scale):
        if old not in sql:
            raise ValueError(f"Q{number}: no literal {old!r}")
        sql = sql.replace(old, new)
    return sql


def _date(rng, first_year, last_year, months=range(1, 13)):
    return f"{rng.randint(first_year, last_year)}-{rng.choice(months):02}-01"


def _brand(rng):
    return f"Brand#{rng.randint(1, 5)}{rng.randint(1, 5)}"


def _changes(number, rng, scale):
    """(old text, new text) pairs; new texts never hold an old one."""
    nation = lambda: rng.choice(NATIONS)[0]  # noqa: E731
    if number == 1:
        return [("'90' day", f"'{rng.randint(60, 120)}' day")]
    if number == 2:
        return [
            ("p_size = 15", f"p_size = {rng.randint(1, 50)}"),
            ("%BRASS", "%" + rng.choice(TYPES[2])),
            ("'EUROPE'", f"'{rng.choice(REGIONS)}'"),
        ]
    if number == 3:
        return [("1995-03-15", f"1995-03-{rng.randint(1, 31):02}"), ("BUILDING", rng.choice(SEGMENTS))]
    if number == 4:
        return [("1993-07-01", _date(rng, 1993, 1996))]
    if number == 5:
        return [("'ASIA'", f"'{rng.choice(REGIONS)}'"), ("1994-01-01", f"{rng.randint(1993, 1997)}-01-01")]
    if number == 6:
        discount = rng.randint(2, 9)
        return [
            ("1994-01-01", f"{rng.randint(1993, 1997)}-01-01"),
            ("0.05 and 0.07", f"0.0{discount - 1} and 0.{discount + 1:02}"),
            ("< 24", f"< {rng.randint(24, 25)}"),
        ]
    if number == 7:
        one, other = rng.sample([name for name, _ in NATIONS], 2)
        return [("'FRANCE'", "'%one%'"), ("'GERMANY'", f"'{other}'"), ("'%one%'", f"'{one}'")]
    if number == 8:
        name, region = rng.choice(NATIONS)
        kind = " ".join(rng.choice(words) for words in TYPES)
        return [("'BRAZIL'", f"'{name}'"), ("'AMERICA'", f"'{REGIONS[region]}'"), ("ECONOMY ANODIZED STEEL", kind)]
    if number == 9:
        return [("green", rng.choice(COLORS))]
    if number == 10:
        return [("1993-10-01", _date(rng, 1993, 1994))]
    if number == 11:
        return [("'GERMANY'", f"'{nation()}'"), ("0.0001", f"{0.0001 / scale:.10f}".rstrip("0"))]
    if number == 12:
        one, other = rng.sample(MODES, 2)
        return [("('MAIL', 'SHIP')", f"('{one}', '{other}')"), ("1994-01-01", f"{rng.randint(1993, 1997)}-01-01")]
    if number == 13:
        return [("%special%requests%", f"%{rng.choice(WORDS[0])}%{rng.choice(WORDS[1])}%")]
    if number == 14:
        return [("1995-09-01", _date(rng, 1993, 1997))]
    if number == 15:
        return [("1996-01-01", _date(rng, 1993, 1997, range(1, 11)))]
    if number == 16:
        sizes = ", ".join(str(size) for size in rng.sample(range(1, 51), 8))
        return [
            ("Brand#45", _brand(rng)),
            ("MEDIUM POLISHED", f"{rng.choice(TYPES[0])} {rng.choice(TYPES[1])}"),
            ("(49, 14, 23, 45, 19, 3, 36, 9)", f"({sizes})"),
        ]
    if number == 17:
        return [("Brand#23", _brand(rng)), ("MED BOX", " ".join(rng.choice(words) for words in CONTAINERS))]
    if number == 18:
        return [("> 300", f"> {rng.randint(312, 315)}")]
    if number == 19:
        first, second, third = rng.randint(1, 10), rng.randint(10, 20), rng.randint(20, 30)
        return [
            ("Brand#12", "Brand#%a"), ("Brand#23", "Brand#%b"), ("Brand#34", _brand(rng)),
            ("Brand#%a", _brand(rng)), ("Brand#%b", _brand(rng)),
            ("l_quantity >= 1 and l_quantity <= 1 + 10", f"l_quantity >= {first} and l_quantity <= {first} + 10"),
            ("l_quantity >= 10 and l_quantity <= 10 + 10", f"l_quantity >= {second} and l_quantity <= {second} +  10"),
            ("l_quantity >= 20 and l_quantity <= 20 + 10", f"l_quantity >= {third} and l_quantity <= {third} +   10"),
        ]  # fmt: skip
    if number == 20:
        return [
            ("forest%", rng.choice(COLORS) + "%"),
            ("1994-01-01", f"{rng.randint(1993, 1997)}-01-01"),
            ("'CANADA'", f"'{nation()}'"),
        ]
    if number == 21:
        return [("'SAUDI ARABIA'", f"'{nation()}'")]
    if number == 22:
        codes = ", ".join(f"'{code}'" for code in rng.sample(range(10, 35), 7))
        return [("('13', '31', '23', '29', '30', '18', '17')", f"({codes})")]
    raise ValueError(f"no query {number}")


if __name__ == "__main__":
    for query in range(1, 23):
        texts = {with_literals(query, seed) for seed in range(20)}
        print(query, len(texts))
