//! Files and folders as tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use trireme_exec::statistics::Sketches;
use trireme_planner::ddl::{Ddl, FileFormat, IfExists, Key};

use super::{Lake, external, name};
use crate::{CatalogError, DescribeFilter, SketchOptions, TableKind};

fn batch(from: i64, to: i64) -> RecordBatch {
    let numbers: Vec<i64> = (from..to).collect();
    let texts: Vec<String> = numbers.iter().map(|number| format!("t{number}")).collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("a", Arc::new(Int64Array::from(numbers))),
        ("b", Arc::new(StringArray::from(texts))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test]
async fn every_format_is_a_table() {
    let lake = Lake::new().await;
    lake.write_parquet("Orders.parquet", &batch(0, 3));
    lake.write("people.csv", "id,name\n1,Ada\n2,Bob\n");
    lake.write("tabs.tsv", "id\tname\n1,5\tAda\n");
    lake.write("logs/a.json", "{\"x\":1}\n{\"x\":2}\n");
    lake.write("logs/nested/b.json", "{\"x\":3}\n");
    lake.write("logs/_temporary/c.json", "{\"x\":100}\n");
    lake.write("logs/README.txt", "not data");
    lake.write_parquet("sales/items/1.parquet", &batch(0, 5));
    assert_eq!(lake.sql("SELECT count(*) FROM orders").await, "3");
    assert_eq!(lake.sql("SELECT count(*) FROM \"Orders\"").await, "3");
    assert_eq!(lake.sql("SELECT name FROM people ORDER BY id").await, "Ada\nBob");
    assert_eq!(lake.sql("SELECT name FROM tabs").await, "Ada");
    assert_eq!(lake.sql("SELECT sum(x) FROM logs").await, "6");
    assert_eq!(lake.sql("SELECT count(*) FROM sales.items").await, "5");
    assert!(lake.error("SELECT * FROM nothing").await.contains("does not exist"));
    assert_eq!(lake.catalog().candidates(&name("ordrs")), ["Orders"]);
}

#[tokio::test]
async fn changed_files_are_seen_at_the_next_statement() {
    let lake = Lake::new().await;
    lake.write_parquet("t/1.parquet", &batch(0, 3));
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "3");
    lake.write_parquet("t/2.parquet", &batch(3, 10));
    assert_eq!(lake.sql("SELECT count(*), max(a) FROM t").await, "10 9");
    std::fs::remove_file(lake.path("t/1.parquet")).unwrap();
    assert_eq!(lake.sql("SELECT count(*), min(a) FROM t").await, "7 3");
    lake.write("u.csv", "a\n1\n");
    assert_eq!(lake.sql("SELECT * FROM u").await, "1");
    lake.write("u.csv", "a,b\n1,two\n");
    assert_eq!(lake.sql("SELECT b FROM u").await, "two");
    std::fs::remove_file(lake.path("u.csv")).unwrap();
    assert!(lake.error("SELECT * FROM u").await.contains("does not exist"));
}

#[tokio::test]
async fn hive_partitions_are_typed_columns() {
    let lake = Lake::new().await;
    for (year, month, day, kind, from) in [
        (2023, "01", "2023-01-05", "x", 0),
        (2024, "1", "2024-01-06", "7", 10),
        (2024, "2", "2024-02-07", "a%20b", 20),
    ] {
        lake.write_parquet(
            &format!("h/year={year}/month={month}/day={day}/kind={kind}/f.parquet"),
            &batch(from, from + 2),
        );
    }
    assert_eq!(
        lake.sql("SELECT arrow_typeof(year), arrow_typeof(day) FROM h LIMIT 1")
            .await,
        "Int64 Date32"
    );
    assert_eq!(lake.sql("SELECT count(*) FROM h WHERE year = 2024").await, "4");
    // `month=01` and `month=1` are the same month.
    assert_eq!(lake.sql("SELECT count(*) FROM h WHERE month = 1").await, "4");
    assert_eq!(
        lake.sql("SELECT count(*) FROM h WHERE 1 = month AND year = 2023").await,
        "2"
    );
    assert_eq!(
        lake.sql("SELECT count(*) FROM h WHERE day = DATE '2024-02-07'").await,
        "2"
    );
    assert_eq!(lake.sql("SELECT DISTINCT kind FROM h ORDER BY kind").await, "7\na b\nx");
    assert_eq!(lake.sql("SELECT count(*) FROM h WHERE kind = 'a b'").await, "2");
}

#[tokio::test]
async fn a_damaged_file_fails_its_table_alone_and_is_named() {
    let lake = Lake::new().await;
    lake.write_parquet("good.parquet", &batch(0, 3));
    lake.write("bad.parquet", "this is not Parquet");
    lake.write_parquet("mixed/1.parquet", &batch(0, 3));
    lake.write("mixed/2.parquet", "PAR1 nor this PAR1");
    lake.write("two/a.csv", "x\n1\n");
    lake.write("two/b.json", "{}\n");
    lake.write("clash.csv", "x\n1\n");
    lake.write("clash.json", "{}\n");
    assert_eq!(lake.sql("SELECT count(*) FROM good").await, "3");
    assert!(lake.error("SELECT * FROM bad").await.contains("bad.parquet"));
    assert!(lake.error("SELECT * FROM mixed").await.contains("mixed/2.parquet"));
    let error = lake.error("SELECT * FROM two").await;
    assert!(error.contains("a.csv") && error.contains("b.json"), "{error}");
    let error = lake.error("SELECT * FROM clash").await;
    assert!(error.contains("clash.csv") && error.contains("clash.json"), "{error}");
    let listed = lake
        .sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1")
        .await;
    assert_eq!(listed, "bad\nclash\ngood\nmixed\ntwo");
    let columns = lake
        .sql("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")
        .await;
    assert_eq!(columns, "good a\ngood b");
    let filter = DescribeFilter {
        with_columns: true,
        with_sizes: true,
        ..DescribeFilter::default()
    };
    let entries = lake.catalog().describe(&filter).await;
    let entry = |table: &str| entries.iter().find(|entry| entry.name.table == table).unwrap();
    assert!(entry("good").error.is_none() && entry("good").schema.is_some());
    assert!(entry("bad").error.as_ref().unwrap().contains("bad.parquet"));
    assert!(entry("clash").error.is_some() && entry("two").error.is_some());
    assert!(entries.iter().any(|entry| entry.kind == TableKind::System));
}

#[tokio::test]
async fn users_files_are_read_only() {
    let lake = Lake::new().await;
    lake.write_parquet("t.parquet", &batch(0, 3));
    let drop = Ddl::DropTable {
        name: name("t"),
        missing_ok: true,
    };
    assert!(matches!(lake.apply(drop).await, Err(CatalogError::ReadOnly { .. })));
    assert!(
        lake.error("INSERT INTO t VALUES (1, 'x')")
            .await
            .contains("can't be changed")
    );
    let delete = lake.catalog().delete(lake.session(), &name("t"), None).await;
    assert!(matches!(delete, Err(CatalogError::ReadOnly { .. })));
    assert!(matches!(
        lake.create_as("t", "SELECT 1 AS x").await,
        Err(CatalogError::AlreadyExists { .. })
    ));
    assert!(lake.path("t.parquet").exists());
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "3");
}

#[tokio::test]
async fn links_out_of_the_folder_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.csv"), "x\n1\n").unwrap();
    let lake = Lake::new().await;
    std::os::unix::fs::symlink(outside.path().join("secret.csv"), lake.path("link.csv")).unwrap();
    lake.write("t/a.csv", "x\n1\n");
    std::os::unix::fs::symlink(outside.path().join("secret.csv"), lake.path("t/b.csv")).unwrap();
    assert!(lake.error("SELECT * FROM link").await.contains("not allowed"));
    assert!(lake.error("SELECT * FROM t").await.contains("not allowed"));
}

#[tokio::test]
async fn external_tables() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("a.csv"), "x;y\n1;2\n").unwrap();
    let mut lake = Lake::allowing(&[outside.path().to_str().unwrap()]).await;
    lake.write("files/1.csv", "x,y\n1,2\n");
    lake.write("files/2.csv", "x,y\n3,4\n");
    lake.write("files/3.txt", "9,9\n");
    lake.write_parquet("p/d=2024-01-01/f.parquet", &batch(0, 3));
    let define = |table| Ddl::CreateExternalTable {
        table,
        if_exists: IfExists::Fail,
    };
    let semicolons = external(
        "e",
        FileFormat::Csv,
        outside.path().join("a.csv").to_str().unwrap(),
        &[("format.delimiter", ";")],
    );
    lake.apply(define(semicolons)).await.unwrap();
    lake.apply(define(external("g", FileFormat::Csv, "files/[1-2].csv", &[])))
        .await
        .unwrap();
    lake.apply(define(external(
        "headless",
        FileFormat::Csv,
        "files/3.txt",
        &[("has_header", "false")],
    )))
    .await
    .unwrap();
    lake.apply(define(external("p2", FileFormat::Parquet, "p/", &[])))
        .await
        .unwrap();
    lake.restart().await;
    assert_eq!(lake.sql("SELECT x, y FROM e").await, "1 2");
    assert_eq!(lake.sql("SELECT sum(x) FROM g").await, "4");
    assert_eq!(lake.sql("SELECT * FROM headless").await, "9 9");
    assert_eq!(lake.sql("SELECT count(*), min(d) FROM p2").await, "3 2024-01-01");
    assert!(lake.error("INSERT INTO e VALUES (1, 2)").await.contains("external"));
    let refused = lake
        .apply(define(external("s", FileFormat::Csv, "/etc/passwd", &[])))
        .await
        .unwrap_err();
    assert!(matches!(refused, CatalogError::Location(_)));
    let private = lake
        .apply(define(external("s", FileFormat::Json, ".trireme/catalog.json", &[])))
        .await
        .unwrap_err();
    assert!(matches!(private, CatalogError::Location(_)));
    let whole = external("all", FileFormat::Parquet, ".", &[]);
    lake.apply(define(whole)).await.unwrap();
    assert_eq!(lake.sql("SELECT count(*) FROM \"all\"").await, "3");
    lake.write("files/deep/4.csv", "x,y\n5,6\n");
    lake.write("files/1 b.csv", "x,y\n7,8\n");
    for (table, pattern, sum) in [
        ("g1", "files/*.csv", "11"),
        ("g2", "files/**/*.csv", "16"),
        ("g3", "fil*/de*/*.csv", "5"),
        ("g4", "files/", "16"),
    ] {
        lake.apply(define(external(table, FileFormat::Csv, pattern, &[])))
            .await
            .unwrap();
        assert_eq!(lake.sql(&format!("SELECT sum(x) FROM {table}")).await, sum, "{pattern}");
    }
    lake.write("files/5.csv", "x,y\n100,6\n");
    assert_eq!(lake.sql("SELECT sum(x) FROM g1").await, "111");
    lake.apply(Ddl::DropTable {
        name: name("e"),
        missing_ok: false,
    })
    .await
    .unwrap();
    assert!(outside.path().join("a.csv").exists());
    assert!(lake.error("SELECT * FROM e").await.contains("does not exist"));
}

#[tokio::test]
async fn analyze_counts_and_goes_stale() {
    let mut lake = Lake::new().await;
    lake.write_parquet("T.parquet", &batch(0, 100));
    assert_eq!(
        lake.apply(Ddl::Analyze { name: name("t") }).await.unwrap().rows,
        Some(100)
    );
    lake.restart().await;
    let found = lake.catalog().statistics().await;
    assert_eq!((found.len(), found[0].rows, found[0].stale), (1, 100, false));
    let column = &found[0].columns[0];
    assert_eq!(
        (column.min.as_deref(), column.max.as_deref(), column.null_count),
        (Some("0"), Some("99"), 0)
    );
    assert!((90..=110).contains(&column.distinct.unwrap()));
    let table = lake.catalog().table(&name("t"), None).await.unwrap().unwrap();
    assert_eq!(table.statistics().unwrap().num_rows.get_value(), Some(&100));
    lake.write_parquet("T.parquet", &batch(0, 101));
    assert!(lake.catalog().statistics().await[0].stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_new_tables_are_analysed_in_the_background() {
    let lake = Lake::new().await;
    lake.write_parquet("large/f.parquet", &batch(0, 100_000));
    lake.write_parquet("small/f.parquet", &batch(0, 100));
    let small = std::fs::metadata(lake.path("small/f.parquet")).unwrap().len();
    let sketches = Arc::new(Sketches::default());
    lake.catalog().share_sketches(SketchOptions {
        sketches: Arc::clone(&sketches),
        sample_rows: 10,
        sketch_below_bytes: small,
        sketch_on_use: false,
        yields: || {},
    });
    for table in ["large", "small"] {
        lake.apply(Ddl::CreateExternalTable {
            table: external(&format!("x_{table}"), FileFormat::Parquet, &format!("{table}/"), &[]),
            if_exists: IfExists::Fail,
        })
        .await
        .unwrap();
    }
    // For a minute: another thread does it.
    for _ in 0..1_200 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if !lake.catalog().statistics().await.is_empty() {
            break;
        }
    }
    let found = lake.catalog().statistics().await;
    let found: Vec<_> = found
        .iter()
        .map(|found| (found.table.table.as_str(), found.rows, found.sampled))
        .collect();
    assert_eq!(found, [("x_small", 100, 10)]);
}

#[tokio::test]
async fn small_tables_that_are_used_are_analysed_in_the_background() {
    let lake = Lake::new().await;
    for (table, rows) in [("large", 100_000), ("small", 100), ("unused", 100)] {
        lake.write_parquet(&format!("{table}.parquet"), &batch(0, rows));
    }
    lake.write("text.csv", "a\n1\n");
    lake.catalog().share_sketches(SketchOptions {
        sketches: Arc::default(),
        sample_rows: 10,
        sketch_below_bytes: std::fs::metadata(lake.path("small.parquet")).unwrap().len(),
        sketch_on_use: true,
        yields: || {},
    });
    let looked = async |done: u64, left: u64| {
        // For a minute: another thread does it.
        for _ in 0..1_200 {
            let counts = lake.catalog().sketch_counts();
            if counts.done >= done && counts.left >= left {
                return assert_eq!((counts.done, counts.left), (done, left));
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{:?}", lake.catalog().sketch_counts());
    };
    for _ in 0..2 {
        for table in ["large", "small", "text"] {
            lake.sql(&format!("SELECT count(*) FROM {table}")).await;
        }
    }
    looked(1, 2).await;
    let found = lake.catalog().statistics().await;
    assert_eq!(
        (found.len(), found[0].table.table.as_str(), found[0].sampled),
        (1, "small", 10)
    );
    // Analysed a moment ago: not again, although it is another table now.
    lake.write_parquet("small.parquet", &batch(0, 50));
    lake.sql("SELECT count(*) FROM small").await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    looked(1, 2).await;
    assert!(lake.catalog().statistics().await[0].stale);
}

#[tokio::test]
async fn statistics_and_samples_go_with_their_tables() {
    let mut lake = Lake::new().await;
    let share = |lake: &Lake| {
        lake.catalog().share_sketches(SketchOptions {
            sketches: Arc::default(),
            sample_rows: 10,
            sketch_below_bytes: 0,
            sketch_on_use: false,
            yields: || {},
        });
    };
    let kept = |lake: &Lake| {
        let files = std::fs::read_dir(lake.path(".trireme/statistics")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let samples = names.filter(|name| name.ends_with(".arrow")).count();
        let stored = std::fs::read_to_string(lake.path(".trireme/statistics/tables.json")).unwrap();
        (samples, stored.matches("analyzed_at").count())
    };
    share(&lake);
    lake.write_parquet("vanishes.parquet", &batch(0, 10));
    lake.write_parquet("stays.parquet", &batch(0, 20));
    lake.write_parquet("x/f.parquet", &batch(0, 30));
    lake.apply(Ddl::CreateExternalTable {
        table: external("dropped", FileFormat::Parquet, "x/", &[]),
        if_exists: IfExists::Fail,
    })
    .await
    .unwrap();
    for table in ["vanishes", "stays", "dropped"] {
        lake.apply(Ddl::Analyze { name: name(table) }).await.unwrap();
    }
    assert_eq!(kept(&lake), (3, 3));
    lake.apply(Ddl::DropTable {
        name: name("dropped"),
        missing_ok: false,
    })
    .await
    .unwrap();
    assert_eq!(kept(&lake), (2, 2));
    std::fs::remove_file(lake.path("vanishes.parquet")).unwrap();
    lake.restart().await;
    share(&lake);
    assert_eq!(kept(&lake), (1, 1));
    assert_eq!(lake.catalog().statistics().await[0].table, name("stays"));
}

#[tokio::test]
async fn keys_of_discovered_tables() {
    let mut lake = Lake::new().await;
    lake.write_parquet("t.parquet", &batch(0, 3));
    let key = |column: &str| Key::Primary {
        name: None,
        columns: vec![column.to_owned()],
    };
    lake.apply(Ddl::AddKey {
        name: name("t"),
        key: key("a"),
    })
    .await
    .unwrap();
    assert!(
        lake.apply(Ddl::AddKey {
            name: name("t"),
            key: key("b")
        })
        .await
        .is_err()
    );
    assert!(
        lake.apply(Ddl::AddKey {
            name: name("t"),
            key: key("nope")
        })
        .await
        .is_err()
    );
    lake.restart().await;
    assert_eq!(lake.catalog().keys(), [(name("t"), vec![key("a")])]);
    let table = lake.catalog().table(&name("t"), None).await.unwrap().unwrap();
    assert!(table.constraints().is_none());
}

#[tokio::test]
async fn a_file_damaged_inside_is_found() {
    let lake = Lake::new().await;
    lake.write_parquet("t/1.parquet", &batch(0, 3));
    lake.write_parquet("t/2.parquet", &batch(0, 50_000));
    let mut bytes = std::fs::read(lake.path("t/2.parquet")).unwrap();
    bytes[4..200].fill(0xff);
    std::fs::write(lake.path("t/2.parquet"), bytes).unwrap();
    let session = lake.session();
    let plan = lake.plan("SELECT sum(a) FROM t").await;
    let plan = session.create_physical_plan(&plan).await.unwrap();
    let error = datafusion::physical_plan::collect(Arc::clone(&plan), session.task_ctx())
        .await
        .unwrap_err();
    let file = trireme_exec::io::damaged_file(&plan, &session.task_ctx()).await;
    assert!(
        file.as_ref().is_some_and(|file| file.ends_with("t/2.parquet")),
        "{file:?} {error}"
    );
    let good = lake.plan("SELECT sum(a) FROM t WHERE a < 0").await;
    assert!(session.create_physical_plan(&good).await.is_ok());
}
