// A JavaScript Flight SQL client against a running server. Prints `PASS name` or `FAIL name: why` for each check.
// Argument: the server's port. NODE_PATH names the folder of the installed packages. The client's prepare(),
// getQuerySchema() and key methods are not asked: what they send is no Flight SQL (a descriptor as an action; no Any).
"use strict";

const { FlightSQLClient } = require("@gizmodata/gizmosql-client");

const client = new FlightSQLClient({ host: "127.0.0.1", port: Number(process.argv[2]), plaintext: true });

function expect(wanted, found, what) {
  const show = (value) => JSON.stringify(value, (_, v) => (typeof v === "bigint" ? Number(v) : v));
  if (show(wanted) !== show(found)) {
    throw new Error(`${what}: ${show(found)}, not ${show(wanted)}`);
  }
}

const rows = async (sql) => (await client.execute(sql)).toArray().map((row) => row.toJSON());

const checks = {
  "query": async () => {
    expect([{ a: 1, s: "x" }], await rows("SELECT CAST(1 AS INT) AS a, 'x' AS s"), "a row");
  },
  "tables": async () => {
    await client.execute("CREATE TABLE t AS SELECT value AS a, 'n' || value AS s FROM range(10)");
    expect([{ n: 10, s: 45 }], await rows("SELECT count(*) AS n, sum(a) AS s FROM t"), "what was written");
  },
  "empty result": async () => {
    const table = await client.execute("SELECT a, s FROM t WHERE false");
    expect(0, table.numRows, "rows");
    expect(["a", "s"], table.schema.fields.map((field) => field.name), "columns");
  },
  "large result": async () => {
    const table = await client.execute("SELECT value AS n FROM range(1000000)");
    expect(1000000, table.numRows, "rows");
  },
  "metadata": async () => {
    expect(["trireme"], await client.getCatalogs(), "catalogs");
    const schemas = (await client.getSchemas()).map((schema) => schema.schema);
    expect(true, schemas.includes("public"), "schemas");
    const tables = (await client.getTables()).map((table) => table.tableName);
    expect(true, tables.includes("t"), "tables");
    expect(true, (await client.getTableTypes()).includes("VIEW"), "table types");
  },
  "errors": async () => {
    let message = "";
    try {
      await client.execute("SELECT * FROM no_such_table");
    } catch (failure) {
      message = String(failure.message);
    }
    expect(true, message.includes("no_such_table"), `the message ${message}`);
    expect([{ a: 1 }], await rows("SELECT CAST(1 AS INT) AS a"), "the next query");
  },
};

(async () => {
  let failures = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`PASS ${name}`);
    } catch (failure) {
      failures += 1;
      console.log(`FAIL ${name}: ${String(failure.message).replace(/\s+/g, " ")}`);
    }
  }
  await client.close();
  process.exit(failures === 0 ? 0 : 1);
})();
