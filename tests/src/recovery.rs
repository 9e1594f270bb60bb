//! What a restart finds: after an orderly end everything, after a crash in the middle the old state or the new, whole.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fused::PATIENCE;
use crate::results::{amid, query_id};
use crate::server::{Server, serve_and_wait};

async fn run(client: &mut Client, statements: &[&str]) {
    for sql in statements {
        client
            .query(sql)
            .await
            .unwrap_or_else(|status| panic!("{sql}: {status}"));
    }
}

async fn rows(client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    client
        .query(sql)
        .await
        .unwrap_or_else(|status| panic!("{sql}: {status}"))
        .rows()
}

/// Waits until a statement got through: on a busy machine none may within any fixed time.
async fn wait_for_one(acknowledged: &AtomicU64) {
    let deadline = Instant::now() + PATIENCE;
    while acknowledged.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "nothing got through");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Rows in one INSERT: a table that holds another multiple was torn.
const ROWS: i64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_survive_a_crash() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("plain.csv"), "a,b\n1,x\n").unwrap();
    let mut server = Server::start(data.path());
    let mut client = server.client().await;
    run(
        &mut client,
        &[
            "CREATE SCHEMA sales",
            "CREATE TABLE sales.region (id BIGINT NOT NULL, name VARCHAR, PRIMARY KEY (id))",
            "INSERT INTO sales.region VALUES (1, 'north'), (2, 'south')",
            "CREATE TABLE t AS SELECT value AS a FROM range(100)",
            "DELETE FROM t WHERE a >= 50",
            "CREATE VIEW v AS SELECT a * 2 AS b FROM t",
            "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'plain.csv' OPTIONS ('format.has_header' 'true')",
            "CREATE TABLE gone AS SELECT 1 AS a",
            "DROP TABLE gone",
            "CREATE FUNCTION double(a BIGINT) RETURNS BIGINT RETURN a + a",
            "CREATE FUNCTION sales.quadruple(a BIGINT) RETURNS BIGINT STRICT AS 'SELECT double(double($1))' LANGUAGE SQL",
            "CREATE VIEW fv AS SELECT sales.quadruple(a) AS q FROM t",
            "CREATE FUNCTION lost(a INT) RETURNS INT RETURN a",
            "DROP FUNCTION lost",
        ],
    )
    .await;
    server.kill();
    let server = Server::start(data.path());
    let mut client = server.client().await;
    assert_eq!(
        rows(&mut client, "SELECT * FROM sales.region ORDER BY id").await,
        [["1", "north"], ["2", "south"]]
    );
    assert_eq!(
        rows(&mut client, "SELECT count(*), sum(b) FROM v").await,
        [["50", "2450"]]
    );
    assert_eq!(rows(&mut client, "SELECT * FROM e").await, [["1", "x"]]);
    assert_eq!(rows(&mut client, "SELECT * FROM plain").await, [["1", "x"]]);
    assert!(client.query("SELECT * FROM gone").await.is_err());
    assert_eq!(rows(&mut client, "SELECT max(q) FROM fv").await, [["196"]]);
    assert_eq!(
        rows(
            &mut client,
            "SELECT schema, name, strict FROM system.functions ORDER BY name"
        )
        .await,
        [["public", "double", "false"], ["sales", "quadruple", "true"]]
    );
    assert!(client.query("SELECT lost(1)").await.is_err());
    let keys = arrow_flight::sql::CommandGetPrimaryKeys {
        table: "region".into(),
        ..Default::default()
    };
    assert_eq!(client.command(keys).await.unwrap().rows().len(), 1, "keys survive too");
}

/// Kills the server while a client inserts as fast as it can; what was acknowledged is there, nothing is torn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_amid_inserts() {
    let data = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..5_u64 {
        let mut server = Server::start(data.path());
        let mut client = server.client().await;
        if round == 0 {
            run(&mut client, &["CREATE TABLE t (a BIGINT)"]).await;
        }
        let through = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&through);
        let inserts = tokio::spawn(async move {
            let mut done = 0;
            while client
                .query(&format!("INSERT INTO t SELECT value FROM range({ROWS})"))
                .await
                .is_ok()
            {
                done += 1;
                count.fetch_add(1, Ordering::SeqCst);
            }
            done
        });
        if round == 0 {
            wait_for_one(&through).await;
        }
        tokio::time::sleep(Duration::from_millis(150 + 70 * round)).await;
        server.kill();
        acknowledged += inserts.await.unwrap();

        let server = Server::start(data.path());
        let found = server.client().await.number("SELECT count(*) FROM t").await;
        assert_eq!(found % ROWS, 0, "an INSERT was torn");
        // The one in flight may have been written before its answer was lost.
        assert!(
            found == acknowledged * ROWS || found == (acknowledged + 1) * ROWS,
            "{found} of {acknowledged} × {ROWS}"
        );
        acknowledged = found / ROWS;
    }
    assert!(acknowledged > 0, "no INSERT got through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_amid_create_table_as() {
    let data = tempfile::tempdir().unwrap();
    let mut names = 0;
    for round in 0..5_u64 {
        let mut server = Server::start(data.path());
        let mut client = server.client().await;
        let first = names;
        let through = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&through);
        let creates = tokio::spawn(async move {
            let mut next = first;
            loop {
                let create = format!("CREATE TABLE c{next} AS SELECT value AS a FROM range(50000)");
                let replace = format!("CREATE OR REPLACE TABLE r AS SELECT {next} AS a FROM range(1000)");
                if client.query(&create).await.is_err() {
                    return next;
                }
                next += 1;
                count.fetch_add(1, Ordering::SeqCst);
                if client.query(&replace).await.is_err() {
                    return next;
                }
            }
        });
        if round == 0 {
            wait_for_one(&through).await;
        }
        tokio::time::sleep(Duration::from_millis(200 + 90 * round)).await;
        server.kill();
        names = creates.await.unwrap();

        let server = Server::start(data.path());
        let mut client = server.client().await;
        for name in 0..names {
            assert_eq!(
                client.number(&format!("SELECT count(*) FROM c{name}")).await,
                50_000,
                "c{name} was acknowledged"
            );
        }
        // The one in flight: whole, or not there at all.
        if let Ok(answer) = client.query(&format!("SELECT count(*) FROM c{names}")).await {
            assert_eq!(answer.rows(), [["50000"]]);
            names += 1;
        }
        if let Ok(answer) = client.query("SELECT count(*), count(DISTINCT a) FROM r").await {
            assert_eq!(
                answer.rows(),
                [["1000", "1"]],
                "a replaced table is the old one or the new one"
            );
        }
    }
    assert!(names > 0, "no CREATE TABLE got through");
}

/// What a crash left on disk goes at the next start; what the catalog names stays.
#[tokio::test]
async fn leftovers_are_removed() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let mut client = server.client().await;
    run(
        &mut client,
        &[
            "CREATE TABLE t AS SELECT 1 AS a",
            "CREATE TABLE u AS SELECT 2 AS a",
            "DROP TABLE u",
        ],
    )
    .await;
    server.kill();
    let tables = data.path().join(".trireme/tables");
    let orphan = tables.join("00000000-0000-4000-8000-000000000000");
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::write(orphan.join("part-0.parquet"), b"half").unwrap();
    let server = Server::start(data.path());
    assert!(!orphan.exists(), "the half-written table is removed");
    assert_eq!(std::fs::read_dir(&tables).unwrap().count(), 1);
    assert_eq!(server.client().await.number("SELECT a FROM t").await, 1);
}

/// SIGTERM: no new work, running queries finish, exit code 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains() {
    let data = tempfile::tempdir().unwrap();
    // The run must not reach the deadline, however busy the machine is.
    let mut server = Server::start_with(data.path(), &["--set", "server.drain_seconds=300"]);
    let mut client = server.client().await;
    let count = 60_000_000_i64;
    // Long enough to be amid its run when the signal comes; the count proves that it ran to its end.
    let sql = format!("SELECT count(*) FROM range({count}) WHERE sqrt(value) >= 0");
    let info = client.statement(&sql).await.unwrap();
    let id = query_id(&info);
    let running = tokio::spawn(async move { client.read(info).await });
    wait_until_it_runs(&server, &id).await;
    server.terminate();
    let answer = running.await.unwrap().expect("a running query finishes");
    assert_eq!(answer.rows(), [[count.to_string()]]);
    assert_eq!(server.wait(PATIENCE).code(), Some(0), "{}", server.log());
}

/// Waits until a query was fetched: what is fetched after the signal may be refused. A quick machine may have ended it by then.
async fn wait_until_it_runs(server: &Server, query_id: &str) {
    let sql = format!(
        "SELECT count(*) FROM system.queries WHERE query_id = '{query_id}' AND state IN ('Running', 'Finished')"
    );
    let mut observer = server.client().await;
    let deadline = Instant::now() + PATIENCE;
    while observer.number(&sql).await == 0 {
        assert!(Instant::now() < deadline, "nobody fetches it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What still runs at the deadline is cancelled: the server ends all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_has_a_deadline() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("trireme.toml");
    let folder = data.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&config, "[server]\ndrain_seconds = 1\n").unwrap();
    let mut server = Server::start_with(&folder, &["--config", config.to_str().unwrap()]);
    let mut client = server.client().await;
    let slow = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b WHERE a.value * b.value % 7 = 3";
    let info = client.statement(slow).await.unwrap();
    let id = query_id(&info);
    let running = tokio::spawn(async move { client.read(info).await });
    amid(&mut server.client().await, &id).await;
    let begin = Instant::now();
    server.terminate();
    let status = running.await.unwrap().expect_err("the straggler is cancelled");
    assert!(!status.message().contains("panicked"), "{status}");
    server.wait(PATIENCE);
    // The deadline that nobody set is 30 s.
    assert!(
        begin.elapsed() < Duration::from_secs(25),
        "the deadline of 1 s took {:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_folder_has_one_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let data_arg = data.path().to_str().unwrap();
    let output = serve_and_wait(&["--data", data_arg, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    one_line(&output.stderr, data_arg);
    assert_eq!(server.client().await.number("SELECT 1").await, 1);
}

#[tokio::test]
async fn a_newer_data_format_is_refused() {
    let data = tempfile::tempdir().unwrap();
    drop(Server::start(data.path()));
    let file = data.path().join(".trireme/format.json");
    let old = std::fs::read_to_string(&file).unwrap();
    assert!(old.contains('1'), "{old}");
    std::fs::write(&file, old.replace('1', "9001")).unwrap();
    let data_arg = data.path().to_str().unwrap();
    let output = serve_and_wait(&["--data", data_arg, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let line = one_line(&output.stderr, "9001");
    assert!(
        line.replace("9001", "").contains('1'),
        "both versions are named: {line}"
    );
}

/// The one line on standard error, which names `what`.
pub(crate) fn one_line(stderr: &[u8], what: &str) -> String {
    let text = String::from_utf8_lossy(stderr).trim().to_owned();
    assert_eq!(text.lines().count(), 1, "one line, not:\n{text}");
    assert!(text.contains(what), "{what:?} is not in: {text}");
    text
}

/// A file that a user puts beside the tables is never ours to delete.
#[tokio::test]
async fn users_files_stay() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("mine.csv");
    std::fs::write(&file, "a\n1\n").unwrap();
    let server = Server::start(data.path());
    let mut client = server.client().await;
    let status = client.query("DROP TABLE mine").await.unwrap_err();
    assert!(status.message().contains("mine"), "{status}");
    run(
        &mut client,
        &[
            "CREATE EXTERNAL TABLE e STORED AS CSV LOCATION 'mine.csv' OPTIONS ('format.has_header' 'true')",
            "DROP TABLE e",
        ],
    )
    .await;
    assert!(Path::new(&file).exists());
    assert_eq!(client.number("SELECT a FROM mine").await, 1);
}
