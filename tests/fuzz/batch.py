"""Batches: tables of a seed, and the queries over them. Query N of a seed is always the same."""

import random
import re

from compare import rows_of
from engines import Engines, Failure, Known
from minimise import minimise, minimise_rows
from queries import Queries, with_other_literals
from tables import make_tables

QUERIES_PER_BATCH = 400
# Of every sixteen queries eight are of one shape: seen, learnt, and then from the plan cache.
QUERIES_PER_SHAPE = 8
MINIMISED_MAX = 30  # by one server; further failures are only printed
SETTINGS = {
    "trireme.target_partitions": [1, 1, 1, 2, 2, 3],
    "trireme.batch_rows": [8192, 8192, 8192, 64, 7],
}


class Batch:
    def __init__(self, seed, number):
        self.number, self.seed = number, seed
        rng = random.Random(f"{seed}/{number}")
        self.tables = make_tables(rng, f"b{number}")
        small = sum(table.data.num_rows for table in self.tables) < 5000
        self.settings = [f"{name} = {rng.choice(values) if small else values[-2]}" for name, values in SETTINGS.items()]
        self.folders = {table.name: f"files/{table.name}" for table in self.tables}
        self.attempts = 0
        self.seen = set()  # shapes of which a failure has been made smaller

    @classmethod
    def of(cls, seed, number, settings):
        """With further settings of the sessions."""
        batch = cls(seed, number)
        batch.settings += settings
        return batch

    def numbers(self):
        return range(self.number * QUERIES_PER_BATCH, (self.number + 1) * QUERIES_PER_BATCH)

    def query(self, number):
        group = number // QUERIES_PER_SHAPE
        shared = group % 2 == 0
        query = Queries(random.Random(f"{self.seed}/{group if shared else number}/{shared}"), self.tables).make()
        if shared and number % QUERIES_PER_SHAPE:
            with_other_literals(query, random.Random(f"{self.seed}/{number}"))
        return query

    def run(self, engines: Engines, numbers, tell):
        """`tell(kind, number, text)` hears of each failure; those after which the server is of no use are raised."""
        engines.set(self.settings)
        created = []
        for table in self.tables:
            created.append(table)
            engines.create(table, self.folders[table.name])
        for number in numbers:
            self.one(engines, number, tell)
        for table in created:
            engines.drop(table, self.folders[table.name])

    def one(self, engines, number, tell):
        query = self.query(number)
        engines.count("queries")
        try:
            engines.check(query)
        except Known as known:
            engines.count("known")
            engines.count(f"known {known}")
        except Failure as failure:
            self.report(engines, number, query, failure, tell)

    def report(self, engines, number, query, failure, tell):
        text = f"\n=== FAILURE ({failure.kind}) --seed {self.seed} --only {number}\n{query.sql()}\n{failure}\n"
        settings = ", ".join(self.settings)
        lost = failure.kind in ("dead", "timeout")
        shape = (failure.kind, number // QUERIES_PER_SHAPE)
        if not lost and shape not in self.seen and engines.minimised < MINIMISED_MAX:
            self.seen.add(shape)
            engines.minimised += 1
            engines.counting = False
            try:
                text += self.smaller(engines, query, failure.kind)
            except Failure as worse:
                failure, lost = worse, True
                text += f"while it was made smaller: {worse}\n"
            engines.counting = True
        text += f"settings: {settings}\n"
        if lost:
            # After a timeout the server may be busy with what nobody waits for.
            text += engines.server.log()[-3000:]
        tell(failure.kind, number, text)
        if lost:
            failure.number = number
            raise failure

    def smaller(self, engines, query, kind):
        def fails(candidate):
            try:
                engines.check(candidate)
            except Failure as failure:
                if failure.kind in ("dead", "timeout"):
                    raise
                return failure.kind == kind
            except Known:
                pass
            return False

        query = minimise(query, fails)
        sql = query.sql()
        used = [table for table in self.tables if re.search(rf"\b{table.name}\b", sql)]
        originals = [table.data for table in used]
        for table in used:
            self.fewer_rows(engines, table, lambda: fails(query))
        text = f"--- smaller\n{sql}\n"
        try:
            engines.check(query)
        except (Failure, Known) as failure:
            text += f"{failure}\n"
        for table in used:
            names = [column.name for column in table.columns if re.search(rf"\b{column.name}\b", sql)] or ["k"]
            shown = table.data.select(names)
            kind = "native" if table.native else f"{table.files} files, groups of {table.rows_per_group}"
            text += f"{table.name} ({kind}, {shown.num_rows} rows): {', '.join(str(field) for field in shown.schema)}\n"
            text += "".join(f"  {row}\n" for row in rows_of(shown)[:12])
        for table, data in zip(used, originals):
            if table.data is not data:
                self.put(engines, table, data)
        return text

    def fewer_rows(self, engines, table, fails):
        def still(data):
            self.put(engines, table, data)
            return fails()

        original = table.data
        self.put(engines, table, minimise_rows(original, still))
        if not fails():
            self.put(engines, table, original)

    def put(self, engines, table, data):
        """Other rows in a table; under another path, so that nothing cached is read."""
        engines.drop(table, self.folders[table.name])
        self.attempts += 1
        self.folders[table.name] = f"files/{table.name}_{self.attempts}"
        table.data = data
        engines.create(table, self.folders[table.name])
