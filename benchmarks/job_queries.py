"""The 113 queries of the Join Order Benchmark by structure: 33 join graphs of 4 to 17 relations, each with two to six sets of conditions.

The graphs are the benchmark's; tables (tests/job/schema.sql) and constants are ours. Relations stand in the order of their names, as
they do there, and so do equalities that follow from others.
"""

# Alias → table; digits at the end tell several of a kind apart.
TABLES = {
    "akt": "aka_title", "an": "aka_name", "cc": "complete_cast", "cct": "comp_cast_type", "chn": "char_name", "ci": "cast_info",
    "cn": "company_name", "ct": "company_type", "it": "info_type", "k": "keyword", "kt": "kind_type", "lt": "link_type",
    "mc": "movie_companies", "mi": "movie_info", "mi_idx": "movie_info_idx", "mk": "movie_keyword", "ml": "movie_link", "n": "name",
    "pi": "person_info", "rt": "role_type", "t": "title",
}  # fmt: skip
FAMILIES = {
    1: (4, "ct it mc mi_idx t"), 2: (4, "cn k mc mk t"), 3: (3, "k mi mk t"), 4: (3, "it k mi_idx mk t"), 5: (3, "ct it mc mi t"),
    6: (6, "ci k mk n t"), 7: (3, "an ci it3 lt ml n pi t"), 8: (4, "an ci cn mc n rt t"), 9: (4, "an chn ci cn mc n rt t"),
    10: (3, "chn ci cn ct mc rt t"), 11: (4, "cn ct k lt mc mk ml t"), 12: (3, "cn ct it1 it2 mc mi mi_idx t"),
    13: (4, "cn ct it2 it1 kt mc mi mi_idx t"), 14: (3, "it1 it2 k kt mi mi_idx mk t"), 15: (4, "akt cn ct it1 k mc mi mk t"),
    16: (4, "an ci cn k mc mk n t"), 17: (6, "ci cn k mc mk n t"), 18: (3, "ci it1 it2 mi mi_idx n t"),
    19: (4, "an chn ci cn it1 mc mi n rt t"), 20: (3, "cct1 cct2 cc chn ci k kt mk n t"), 21: (3, "cn ct k lt mc mi mk ml t"),
    22: (4, "cn ct it1 it2 k kt mc mi mi_idx mk t"), 23: (3, "cct1 cc cn ct it1 k kt mc mi mk t"),
    24: (2, "an chn ci cn it1 k mc mi mk n rt t"), 25: (3, "ci it1 it2 k mi mi_idx mk n t"),
    26: (3, "cct1 cct2 cc chn ci it2 k kt mi_idx mk n t"), 27: (3, "cct1 cct2 cc cn ct k lt mc mi mk ml t"),
    28: (3, "cct1 cct2 cc cn ct it1 it2 k kt mc mi mi_idx mk t"), 29: (3, "an cct1 cct2 cc chn ci cn it1 it3 k mc mi mk n pi rt t"),
    30: (3, "cct1 cct2 cc ci it1 it2 k mi mi_idx mk n t"), 31: (3, "ci cn it1 it2 k mc mi mi_idx mk n t"),
    32: (2, "k lt mk ml t1 t2"), 33: (3, "cn1 cn2 it1 it2 kt1 kt2 lt mc1 mc2 mi_idx1 mi_idx2 ml t1 t2"),
}  # fmt: skip
# By alias: conditions of the first, second, … variant, round and round; {} is the alias.
CONDITIONS = {
    "an": ["{}.name LIKE '%a%'", "", "{}.name LIKE 'A%'"],
    "cct1": ["{}.kind = 'cast'", "{}.kind = 'crew'"],
    "cct2": ["{}.kind LIKE '%complete%'", "{}.kind = 'complete+verified'", "{}.kind = 'complete'"],
    "chn": ["", "{}.name LIKE '%Man%'", "{}.name = 'Queen 17' OR {}.name LIKE '%Doctor%' OR {}.name LIKE '%Him%'"],
    "ci": ["", "{}.note LIKE '%(voice)%'", "{}.note IN ('(writer)', '(head writer)', '(written by)', '(story)')", "{}.note LIKE '%(producer)%'"],
    "cn": ["{}.country_code = '[us]'", "{}.country_code = '[de]'", "{}.country_code <> '[pl]' AND ({}.name LIKE '%Film%' OR {}.name LIKE '%Warner%')"],
    "ct": ["{}.kind = 'production companies'", "{}.kind = 'distributors'", "{}.kind IS NOT NULL"],
    "it": ["{}.info = 'rating'", "{}.info = 'top 250 rank'", "{}.info = 'bottom 10 rank'", "{}.info = 'votes'"],
    "it1": ["{}.info = 'genres'", "{}.info = 'release dates'", "{}.info = 'countries'"],
    "it2": ["{}.info = 'rating'", "{}.info = 'votes'"],
    "it3": ["{}.info = 'mini biography'", "{}.info IN ('mini biography', 'height')"],
    "k": ["{}.keyword = 'character-name-in-title'", "{}.keyword LIKE '%sequel%'", "{}.keyword IN ('superhero', 'sequel', 'second-part', 'marvel-cinematic-universe', 'revenge')", "{}.keyword IN ('murder', 'blood', 'violence')"],
    "kt": ["{}.kind = 'movie'", "{}.kind IN ('movie', 'episode')", "{}.kind = 'episode'"],
    "lt": ["{}.link LIKE '%follow%'", "{}.link = 'features'", "{}.link IN ('remake of', 'remade as', 'references')"],
    "mc": ["{}.note NOT LIKE '%(TV)%' AND ({}.note LIKE '%(co-production)%' OR {}.note LIKE '%(presents)%')", "{}.note IS NULL", "{}.note LIKE '%(20%)%' AND {}.note NOT LIKE '%(VHS)%'", ""],
    "mi": ["{}.info IN ('Drama', 'Horror', 'Action', 'Sci-Fi', 'Thriller', 'Crime', 'War')", "{}.info LIKE 'USA:% 200%'", "{}.info IN ('Germany', 'USA', 'Sweden', 'Denmark')"],
    "mi_idx": ["", "{}.info > '7.0'", "{}.info < '8.5'"],
    "n": ["", "{}.gender IS NOT NULL", "{}.name LIKE '%An%'", "{}.name LIKE '%Tim%'", "{}.name LIKE 'B%'"],
    "pi": ["{}.note IS NOT NULL", "{}.note = 'Volker Boehm'", ""],
    "rt": ["{}.role = 'actress'", "{}.role = 'writer'", "{}.role = 'actor'", "{}.role = 'costume designer'"],
    "t": ["{}.production_year BETWEEN 2005 AND 2010", "{}.production_year > 2000", "{}.production_year BETWEEN 1950 AND 2000", "{}.production_year > 1990 AND ({}.title LIKE '%Champion%' OR {}.title LIKE 'A %')"],
}  # fmt: skip
# Columns that point to another table's id.
POINTS = {
    "an": [("person_id", "n")], "akt": [("movie_id", "t")], "cc": [("movie_id", "t"), ("subject_id", "cct1"), ("status_id", "cct2")],
    "ci": [("movie_id", "t"), ("person_id", "n"), ("person_role_id", "chn"), ("role_id", "rt")],
    "mc": [("movie_id", "t"), ("company_id", "cn"), ("company_type_id", "ct")], "mi": [("movie_id", "t"), ("info_type_id", "it1")],
    "mi_idx": [("movie_id", "t"), ("info_type_id", "it2")], "mk": [("movie_id", "t"), ("keyword_id", "k")],
    "ml": [("movie_id", "t"), ("link_type_id", "lt")], "pi": [("person_id", "n"), ("info_type_id", "it3")], "t": [("kind_id", "kt")],
}  # fmt: skip
SHOWN = {"t": "title", "n": "name", "mi_idx": "info", "cn": "name", "chn": "name", "mi": "info", "lt": "link", "an": "name", "k": "keyword"}


def kind(alias):
    return alias.rstrip("0123456789")


def target(alias, to, aliases):
    """The relation that a column of `alias` points to here: of the same number, of the only one, or of the other film of a link."""
    number = alias[len(kind(alias)) :]
    for name in (kind(to) + number, to, kind(to)):
        if name in aliases:
            return name
    return None


def joins(aliases):
    found = []
    for alias in aliases:
        for column, to in POINTS.get(kind(alias), []):
            if kind(alias) == "ml" and "t1" in aliases and to == "t":
                found += [f"{alias}.movie_id = t1.id", f"{alias}.linked_movie_id = t2.id"]
            elif name := target(alias, to, aliases):
                found.append(f"{alias}.{column} = {name}.id")
    # What follows from these, as the benchmark's queries say it too.
    if "t" in aliases:
        of_film = [alias for alias in aliases if any(to == "t" for _, to in POINTS.get(kind(alias), []))]
        found += [f"{a}.movie_id = {b}.movie_id" for a, b in zip(of_film, of_film[1:])]
    of_person = [alias for alias in aliases if any(to == "n" for _, to in POINTS.get(alias, []))]
    found += [f"{a}.person_id = {b}.person_id" for a, b in zip(of_person, of_person[1:])]
    return found


def conditions(family, variant, aliases):
    found = []
    for at, alias in enumerate(aliases):
        choices = CONDITIONS.get(alias) or CONDITIONS.get(kind(alias)) or [""]
        # Every second relation goes on by one, so that variants are not all alike.
        text = choices[(variant + (family + at) % 2) % len(choices)].replace("{}", alias)
        if alias == "ci" and "rt" in aliases:
            # Notes go with roles.
            role = (variant + (family + aliases.index("rt")) % 2) % 4
            text = ["ci.note LIKE '%(voice)%'", "ci.note LIKE '(w%'", "", ""][role]
        if alias == "mi" and "it1" in aliases:
            # The values have to be of the kind of info.
            kind_at = aliases.index("it1")
            text = CONDITIONS["mi"][(variant + (family + kind_at) % 2) % 3].replace("{}", alias)
        if text:
            found.append(f"({text})" if " OR " in text else text)
    return found


def queries():
    """(label, SQL)."""
    found = []
    for family, (variants, names) in FAMILIES.items():
        aliases = names.split()
        for variant in range(variants):
            shown = [f"min({alias}.{SHOWN[kind(alias)]})" for alias in aliases if kind(alias) in SHOWN][:3]
            tables = ", ".join(f"{TABLES[kind(alias)]} AS {alias}" for alias in aliases)
            where = " AND ".join(joins(aliases) + conditions(family, variant, aliases))
            label = f"{family:02}{'abcdef'[variant]}"
            found.append((label, f"SELECT count(*), {', '.join(shown)} FROM {tables} WHERE {where}"))
    return found
