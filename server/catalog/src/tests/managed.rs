//! Managed tables: what they store, how they change, and that they survive.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::logical_expr::{col, lit};
use trireme_planner::ddl::{Ddl, ExternalTable, FileFormat, IfExists, Key, ManagedSource, TableVersionRef};

use super::{Lake, create, external, name, tables_on_disk};
use crate::{CatalogError, DescribeFilter};

fn columns() -> ManagedSource {
    ManagedSource::Columns(Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
    ])))
}

#[tokio::test]
async fn create_insert_restart_drop() {
    let mut lake = Lake::new().await;
    assert_eq!(
        lake.apply(create("t", columns(), IfExists::Fail)).await.unwrap().rows,
        None
    );
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "0");
    assert_eq!(
        lake.sql("INSERT INTO t VALUES (1, 'a', TIMESTAMP '2024-01-02 03:04:05'), (2, NULL, NULL)")
            .await,
        "2"
    );
    assert_eq!(lake.sql("SELECT id, text FROM t WHERE id = 1").await, "1 a");
    assert!(lake.try_sql("INSERT INTO t VALUES (NULL, 'x', NULL)").await.is_err());
    lake.restart().await;
    assert_eq!(lake.sql("INSERT INTO t (id) SELECT id + 10 FROM t").await, "2");
    assert_eq!(lake.sql("SELECT count(*), sum(id) FROM t").await, "4 26");
    assert!(matches!(
        lake.apply(create("t", columns(), IfExists::Fail)).await,
        Err(CatalogError::AlreadyExists { .. })
    ));
    assert!(lake.apply(create("t", columns(), IfExists::Keep)).await.is_ok());
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "4");
    lake.apply(create("t", columns(), IfExists::Replace)).await.unwrap();
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "0");
    assert_eq!(tables_on_disk(lake.folder.path()), 1);
    lake.apply(Ddl::DropTable {
        name: name("t"),
        missing_ok: false,
    })
    .await
    .unwrap();
    assert_eq!(tables_on_disk(lake.folder.path()), 0);
    let missing = lake
        .apply(Ddl::DropTable {
            name: name("t"),
            missing_ok: false,
        })
        .await;
    assert!(matches!(missing, Err(CatalogError::NotFound { .. })));
    assert!(
        lake.apply(Ddl::DropTable {
            name: name("t"),
            missing_ok: true
        })
        .await
        .is_ok()
    );
    lake.restart().await;
    assert!(lake.error("SELECT * FROM t").await.contains("does not exist"));
}

#[tokio::test]
async fn create_as_keeps_values_and_counts() {
    let lake = Lake::new().await;
    let query = "SELECT CAST(column1 AS BIGINT UNSIGNED) AS u, column2 AS s, CAST(column1 AS DECIMAL(10,2)) AS d, \
                 CAST('2024-05-06' AS DATE) AS day, arrow_cast(column2, 'Dictionary(Int32, Utf8)') AS dict, \
                 TIMESTAMP '2024-01-02 03:04:05' AS ts, [1, 2] AS l, column1 > 1 AS flag, 1.5 AS f \
                 FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) AS v";
    assert_eq!(lake.create_as("t", query).await.unwrap().rows, Some(3));
    let expected = "1 a 1.00 2024-05-06 a 2024-01-02T03:04:05 [1, 2] false 1.5";
    assert_eq!(lake.sql("SELECT * FROM t WHERE u = 1").await, expected);
    assert_eq!(lake.sql("SELECT count(*), count(s) FROM t").await, "3 2");
    assert!(lake.sql("INSERT INTO t (s) VALUES ('only this')").await.contains('1'));
    assert_eq!(
        lake.create_as("e", "SELECT 1 AS x WHERE false").await.unwrap().rows,
        Some(0)
    );
    assert_eq!(lake.sql("SELECT count(*) FROM e").await, "0");
    assert!(
        lake.create_as("bad", "SELECT 1 AS x, 2 AS X2, INTERVAL '1 day' AS i")
            .await
            .is_err()
    );
    assert!(lake.create_as("bad", "SELECT 1 / 0 AS x").await.is_err());
    assert_eq!(tables_on_disk(lake.folder.path()), 2);
}

#[tokio::test]
async fn partitioned_tables() {
    let lake = Lake::new().await;
    let query = "SELECT column1 AS k, column2 AS v FROM (VALUES ('x', 1), ('y', 2), ('x', 3)) AS t";
    let ddl = Ddl::CreateTable {
        name: name("t"),
        source: ManagedSource::Query(Box::new(lake.plan(query).await)),
        keys: vec![],
        partition_columns: vec!["k".to_owned()],
        if_exists: IfExists::Fail,
    };
    lake.apply(ddl).await.unwrap();
    assert_eq!(lake.sql("SELECT sum(v) FROM t WHERE k = 'x'").await, "4");
    assert!(
        !lake
            .sql("SELECT arrow_typeof(k) FROM t LIMIT 1")
            .await
            .contains("Dictionary")
    );
    lake.sql("INSERT INTO t VALUES ('z', 9)").await;
    assert_eq!(
        lake.sql("SELECT k, sum(v) FROM t GROUP BY k ORDER BY k").await,
        "x 4\ny 2\nz 9"
    );
    assert_eq!(
        lake.catalog()
            .delete(lake.session(), &name("t"), Some(col("k").eq(lit("x"))))
            .await
            .unwrap(),
        2
    );
    assert_eq!(lake.sql("SELECT sum(v) FROM t").await, "11");
}

#[tokio::test]
async fn delete_and_update() {
    let lake = Lake::new().await;
    lake.create_as(
        "t",
        "SELECT value AS id, 'n' || value AS s FROM generate_series(1, 10) AS g",
    )
    .await
    .unwrap();
    let session = lake.session();
    let catalog = lake.catalog();
    assert_eq!(
        catalog
            .delete(Arc::clone(&session), &name("t"), Some(col("t.id").gt(lit(8_i64))))
            .await
            .unwrap(),
        2
    );
    assert_eq!(lake.sql("SELECT count(*), max(id) FROM t").await, "8 8");
    let set = vec![("s".to_owned(), lit("new"))];
    assert_eq!(
        catalog
            .update(Arc::clone(&session), &name("t"), set, Some(col("id").lt(lit(3_i64))))
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        lake.sql("SELECT id, s FROM t WHERE id < 4 ORDER BY id").await,
        "1 new\n2 new\n3 n3"
    );
    assert_eq!(
        catalog
            .delete(Arc::clone(&session), &name("t"), Some(col("id").gt(lit(100_i64))))
            .await
            .unwrap(),
        0
    );
    assert_eq!(catalog.delete(session, &name("t"), None).await.unwrap(), 8);
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "0");
    lake.sql("INSERT INTO t VALUES (1, 'x')").await;
    assert_eq!(lake.sql("SELECT * FROM t").await, "1 x");
}

#[tokio::test]
async fn time_travel() {
    let mut lake = Lake::new().await;
    lake.create_as("t", "SELECT 1 AS x").await.unwrap();
    lake.sql("INSERT INTO t VALUES (2)").await;
    let between = chrono::Utc::now();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    lake.sql("INSERT INTO t VALUES (3)").await;
    lake.restart().await;
    let at = async |version: TableVersionRef| {
        let table = lake.catalog().table(&name("t"), Some(&version)).await?;
        let frame = super::context(lake.catalog(), "public")
            .read_table(table.unwrap())
            .unwrap();
        Ok::<usize, CatalogError>(frame.count().await.unwrap())
    };
    assert_eq!(at(TableVersionRef::Version(0)).await.unwrap(), 1);
    assert_eq!(at(TableVersionRef::Version(1)).await.unwrap(), 2);
    assert_eq!(at(TableVersionRef::Version(2)).await.unwrap(), 3);
    let error = at(TableVersionRef::Version(3)).await.unwrap_err().to_string();
    assert!(error.contains("the newest is 2"), "{error}");
    assert_eq!(at(TableVersionRef::Timestamp(between.to_rfc3339())).await.unwrap(), 2);
    assert_eq!(
        at(TableVersionRef::Timestamp("2999-01-01".to_owned())).await.unwrap(),
        3
    );
    assert!(at(TableVersionRef::Timestamp("2001-01-01".to_owned())).await.is_err());
    assert!(at(TableVersionRef::Timestamp("yesterday".to_owned())).await.is_err());
    assert_eq!(at(TableVersionRef::Version(1)).await.unwrap(), 2);
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "3");
    lake.write("plain.csv", "x\n1\n");
    let plain = lake
        .catalog()
        .table(&name("plain"), Some(&TableVersionRef::Version(0)))
        .await;
    assert!(plain.unwrap_err().to_string().contains("keeps no versions"));
}

#[tokio::test]
async fn a_lost_race_is_a_conflict() {
    let lake = Lake::new().await;
    lake.create_as("t", "SELECT value AS id FROM generate_series(1, 10) AS g")
        .await
        .unwrap();
    let table = lake.catalog().table(&name("t"), None).await.unwrap().unwrap();
    let stale = lake.plan("INSERT OVERWRITE t SELECT 7").await;
    let physical = lake.session().create_physical_plan(&stale).await.unwrap();
    lake.catalog()
        .delete(lake.session(), &name("t"), Some(col("id").gt(lit(5_i64))))
        .await
        .unwrap();
    let error = datafusion::physical_plan::collect(physical, lake.session().task_ctx())
        .await
        .unwrap_err();
    let error = trireme_exec::QueryError::from(error);
    assert_eq!(error.class, trireme_exec::ErrorClass::Conflict, "{error}");
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "5");
    drop(table);
}

#[tokio::test]
async fn concurrent_inserts_all_count() {
    let lake = Lake::new().await;
    lake.create_as("t", "SELECT 0 AS x").await.unwrap();
    let inserts = (1..=4).map(|value| {
        let lake = &lake;
        async move { lake.sql(&format!("INSERT INTO t VALUES ({value})")).await }
    });
    futures::future::join_all(inserts).await;
    assert_eq!(lake.sql("SELECT count(*), sum(x) FROM t").await, "5 10");
}

#[tokio::test]
async fn a_crash_in_a_write_leaves_the_old_state() {
    let mut lake = Lake::new().await;
    lake.create_as("t", "SELECT 1 AS x").await.unwrap();
    let table = std::fs::read_dir(lake.path(".trireme/tables"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    // Data files without a commit, a table without a definition, definitions half written.
    std::fs::write(table.join("part-00000-dead.parquet"), "half").unwrap();
    std::fs::create_dir_all(lake.path(".trireme/tables/abandoned/_delta_log")).unwrap();
    std::fs::write(lake.path(".trireme/catalog.json.new"), "{\"tab").unwrap();
    lake.restart().await;
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "1");
    assert_eq!(tables_on_disk(lake.folder.path()), 1);
}

#[tokio::test]
async fn users_delta_tables_are_read_with_their_versions() {
    let mut lake = Lake::new().await;
    lake.create_as("t", "SELECT 1 AS x").await.unwrap();
    lake.sql("INSERT INTO t VALUES (2)").await;
    let table = std::fs::read_dir(lake.path(".trireme/tables"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(&table)
        .arg(lake.path("mine"))
        .status()
        .unwrap();
    assert!(copied.success());
    let elsewhere: ExternalTable = external("theirs", FileFormat::Delta, "mine", &[]);
    lake.apply(Ddl::CreateExternalTable {
        table: elsewhere,
        if_exists: IfExists::Fail,
    })
    .await
    .unwrap();
    lake.restart().await;
    for table in ["mine", "theirs"] {
        assert_eq!(lake.sql(&format!("SELECT sum(x) FROM {table}")).await, "3");
        assert!(
            lake.catalog()
                .table(&name(table), Some(&TableVersionRef::Version(0)))
                .await
                .unwrap()
                .is_some()
        );
        assert!(
            lake.error(&format!("INSERT INTO {table} VALUES (1)"))
                .await
                .contains("can't be changed")
        );
    }
}

#[tokio::test]
async fn keys_and_sizes() {
    let mut lake = Lake::new().await;
    lake.create_as("p", "SELECT 1 AS id").await.unwrap();
    let foreign = Key::Foreign {
        name: None,
        columns: vec!["pid".to_owned()],
        references: name("p"),
        referenced_columns: vec![],
    };
    let primary = Key::Primary {
        name: Some("pk".to_owned()),
        columns: vec!["id".to_owned()],
    };
    let ddl = |table: &str, plan, keys: &[Key]| Ddl::CreateTable {
        name: name(table),
        source: ManagedSource::Query(Box::new(plan)),
        keys: keys.to_vec(),
        partition_columns: vec![],
        if_exists: IfExists::Fail,
    };
    let plan = lake.plan("SELECT 1 AS id, 1 AS pid").await;
    lake.apply(ddl("c", plan, &[primary.clone(), foreign.clone()]))
        .await
        .unwrap();
    let nowhere = Key::Foreign {
        name: None,
        columns: vec!["pid".to_owned()],
        references: name("q"),
        referenced_columns: vec![],
    };
    let plan = lake.plan("SELECT 1 AS pid").await;
    assert!(matches!(
        lake.apply(ddl("d", plan, &[nowhere])).await,
        Err(CatalogError::NotFound { .. })
    ));
    lake.restart().await;
    let filter = DescribeFilter {
        table_pattern: Some("c".to_owned()),
        with_sizes: true,
        ..DescribeFilter::default()
    };
    let entries = lake.catalog().describe(&filter).await;
    let entry = entries.iter().find(|entry| entry.name == name("c")).unwrap();
    assert_eq!(
        (entry.rows, &entry.primary_key, entry.foreign_keys.as_slice()),
        (Some(1), &Some(primary), [foreign].as_slice())
    );
    assert!(entry.bytes.unwrap() > 0);
    lake.apply(Ddl::DropTable {
        name: name("c"),
        missing_ok: false,
    })
    .await
    .unwrap();
    assert!(lake.catalog().keys().is_empty());
}

#[tokio::test]
async fn errors_speak_of_the_rows() {
    let lake = Lake::new().await;
    lake.apply(create("t", columns(), IfExists::Fail)).await.unwrap();
    lake.sql("INSERT INTO t (id) VALUES (1)").await;
    let set = vec![("id".to_owned(), lit(datafusion::scalar::ScalarValue::Int64(None)))];
    let nothing = lake.catalog().update(lake.session(), &name("t"), set, None).await;
    let bad = lake
        .catalog()
        .delete(lake.session(), &name("t"), Some(col("nope").eq(lit(1))))
        .await;
    let division = lake.create_as("z", "SELECT 1 / 0 AS x").await;
    let interval = lake.create_as("z", "SELECT INTERVAL '1 day' AS x").await;
    let twice = lake.create_as("z", "SELECT 1 AS x, 2 AS \"X\"").await;
    for error in [nothing.err(), bad.err(), division.err(), interval.err(), twice.err()] {
        let error = trireme_exec::QueryError::from(error.unwrap());
        assert_eq!(error.class, trireme_exec::ErrorClass::Invalid, "{error}");
        assert!(
            !error.message.contains("DeltaTable") && !error.message.contains("error:"),
            "{error}"
        );
    }
    assert_eq!(lake.error("INSERT INTO t (id) SELECT 1 / 0").await, "division by zero");
    let error = lake.error("INSERT INTO t (text) VALUES ('x')").await;
    assert!(error.starts_with("column id can't be NULL"), "{error}");
    assert_eq!(lake.sql("SELECT count(*) FROM t").await, "1");
}

/// The WHERE of a statement over table `t`, as a planner gives it.
async fn predicate(lake: &Lake, text: &str) -> Option<datafusion::logical_expr::Expr> {
    use datafusion::logical_expr::LogicalPlan;
    match lake.plan(&format!("DELETE FROM t WHERE {text}")).await {
        LogicalPlan::Dml(dml) => match dml.input.as_ref() {
            LogicalPlan::Filter(filter) => Some(filter.predicate.clone()),
            LogicalPlan::TableScan(_) => None,
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn subqueries_in_delete_and_update() {
    let lake = Lake::new().await;
    lake.create_as("t", "SELECT value AS id FROM generate_series(1, 10) AS g")
        .await
        .unwrap();
    lake.create_as("u", "SELECT value AS id FROM generate_series(3, 4) AS g")
        .await
        .unwrap();
    lake.sql("INSERT INTO u VALUES (NULL)").await;
    let session = lake.session();
    for (text, deleted) in [
        // NULL in the list: nothing is known not to be in it.
        ("id NOT IN (SELECT id FROM u)", 0),
        ("id IN (SELECT id FROM u)", 2),
        ("id IN (SELECT id FROM u WHERE false)", 0),
        ("id = (SELECT max(id) FROM t)", 1),
        ("id < (SELECT id FROM u WHERE id > 100)", 0),
        ("EXISTS (SELECT 1 FROM u WHERE id > 100) OR id = 1", 1),
        ("id NOT IN (SELECT id + 4 FROM u WHERE id IS NOT NULL)", 4),
        ("NOT EXISTS (SELECT 1 FROM u WHERE id > 100)", 2),
    ] {
        let predicate = predicate(&lake, text).await;
        let rows = lake.catalog().delete(Arc::clone(&session), &name("t"), predicate).await;
        assert_eq!(
            rows.unwrap_or_else(|error| panic!("{text}: {error}")),
            deleted,
            "{text}"
        );
    }
    lake.sql("INSERT INTO t VALUES (1), (2)").await;
    let correlated = predicate(&lake, "EXISTS (SELECT 1 FROM u WHERE u.id = t.id)").await;
    let error = lake
        .catalog()
        .delete(session, &name("t"), correlated)
        .await
        .unwrap_err();
    assert_eq!(
        trireme_exec::QueryError::from(error).class,
        trireme_exec::ErrorClass::Unsupported
    );
}

/// The writer decides about whole files by partition values alone; what it can't know must not be deleted.
#[tokio::test]
async fn an_unknown_predicate_deletes_nothing() {
    let lake = Lake::new().await;
    let query = "SELECT column1 AS k, column2 AS v FROM (VALUES ('x', 1), ('y', 2), (NULL, 3), ('x', NULL)) AS t";
    let ddl = Ddl::CreateTable {
        name: name("t"),
        source: ManagedSource::Query(Box::new(lake.plan(query).await)),
        keys: vec![],
        partition_columns: vec!["k".to_owned()],
        if_exists: IfExists::Fail,
    };
    lake.apply(ddl).await.unwrap();
    for (text, left) in [
        ("v = NULL", 4),
        ("k = NULL", 4),
        ("NULL", 4),
        ("1 = 0", 4),
        ("NOT (v > 0 OR NULL)", 4),
        ("k <> 'x' AND NULL", 4),
        ("v > 1 AND k = 'x'", 4),
        ("k <> 'x'", 3),
        ("k NOT IN ('y', NULL)", 3),
        ("k LIKE 'z%' OR v = 100", 3),
        ("upper(k) = 'X' AND v IS NULL", 2),
        ("k IS NULL", 1),
        ("k = 'x' OR NULL", 0),
    ] {
        let condition = predicate(&lake, text).await;
        let before = lake.sql("SELECT count(*) FROM t").await.parse::<u64>().unwrap();
        let rows = lake
            .catalog()
            .delete(lake.session(), &name("t"), condition.clone())
            .await;
        let rows = rows.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(lake.sql("SELECT count(*) FROM t").await, left.to_string(), "{text}");
        assert_eq!(rows, before - left, "{text}");
    }
    lake.sql("INSERT INTO t VALUES ('x', 1), (NULL, 2)").await;
    for (text, updated) in [
        ("k = NULL", 0),
        ("k = 'x'", 1),
        ("k IS NULL", 1),
        ("v > 100 OR NULL", 0),
        ("true", 2),
    ] {
        let set = vec![("v".to_owned(), lit(7_i64))];
        let condition = predicate(&lake, text).await;
        let rows = lake.catalog().update(lake.session(), &name("t"), set, condition).await;
        assert_eq!(
            rows.unwrap_or_else(|error| panic!("{text}: {error}")),
            updated,
            "{text}"
        );
    }
}
