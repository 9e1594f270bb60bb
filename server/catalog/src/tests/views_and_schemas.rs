//! Views, schemas, and what describes them.

use trireme_planner::ddl::{Ddl, IfExists};

use super::{Lake, name};
use crate::{CatalogError, TableKind};

async fn view(lake: &Lake, view: &str, sql: &str, if_exists: IfExists) -> Result<crate::Applied, CatalogError> {
    let plan = Box::new(lake.plan("SELECT 1").await);
    lake.apply(Ddl::CreateView {
        name: name(view),
        query_sql: sql.to_owned(),
        plan,
        if_exists,
    })
    .await
}

#[tokio::test]
async fn views_follow_their_tables() {
    let mut lake = Lake::new().await;
    lake.write("t.csv", "x\n1\n2\n");
    view(&lake, "v", "SELECT x * 10 AS y FROM t", IfExists::Fail)
        .await
        .unwrap();
    view(&lake, "w", "SELECT sum(y) AS s FROM v", IfExists::Fail)
        .await
        .unwrap();
    lake.restart().await;
    assert_eq!(lake.sql("SELECT s FROM w").await, "30");
    lake.write("t.csv", "x\n1\n2\n3\n");
    assert_eq!(lake.sql("SELECT s FROM w WHERE s > 5").await, "60");
    assert!(matches!(
        view(&lake, "v", "SELECT 1 AS y", IfExists::Fail).await,
        Err(CatalogError::AlreadyExists { .. })
    ));
    let circle = view(&lake, "v", "SELECT s AS y FROM w", IfExists::Replace)
        .await
        .unwrap_err();
    assert!(
        trireme_exec::QueryError::from(circle)
            .to_string()
            .contains("refers to itself")
    );
    assert!(view(&lake, "self", "SELECT * FROM self", IfExists::Fail).await.is_err());
    assert!(
        lake.error("INSERT INTO v VALUES (1)")
            .await
            .to_lowercase()
            .contains("insert")
    );
    std::fs::remove_file(lake.path("t.csv")).unwrap();
    assert!(lake.error("SELECT * FROM w").await.contains('t'));
    let listed = lake
        .sql("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1")
        .await;
    assert_eq!(listed, "v VIEW\nw VIEW");
    assert!(
        lake.apply(Ddl::DropTable {
            name: name("w"),
            missing_ok: false
        })
        .await
        .is_err()
    );
    lake.apply(Ddl::DropView {
        name: name("w"),
        missing_ok: false,
    })
    .await
    .unwrap();
    assert!(matches!(
        lake.apply(Ddl::DropView {
            name: name("w"),
            missing_ok: false
        })
        .await,
        Err(CatalogError::NotFound { .. })
    ));
}

#[tokio::test]
async fn view_definitions_are_listed() {
    let lake = Lake::new().await;
    view(&lake, "v", "SELECT 1 AS y", IfExists::Fail).await.unwrap();
    assert_eq!(
        lake.sql("SELECT definition FROM information_schema.views WHERE table_name = 'v'")
            .await,
        "SELECT 1 AS y"
    );
    let entries = lake.catalog().describe(&crate::DescribeFilter::default()).await;
    let entry = entries.iter().find(|entry| entry.name == name("v")).unwrap();
    assert_eq!(
        (entry.kind, entry.definition.as_deref()),
        (TableKind::View, Some("SELECT 1 AS y"))
    );
}

#[tokio::test]
async fn schemas() {
    let mut lake = Lake::new().await;
    lake.write("folder/t/a.csv", "x\n1\n");
    let create = |schema: &str| Ddl::CreateSchema {
        name: schema.to_owned(),
        if_exists: IfExists::Fail,
    };
    let drop = |schema: &str, cascade| Ddl::DropSchema {
        name: schema.to_owned(),
        missing_ok: false,
        cascade,
    };
    lake.apply(create("mine")).await.unwrap();
    assert!(matches!(
        lake.apply(create("mine")).await,
        Err(CatalogError::AlreadyExists { .. })
    ));
    assert!(matches!(
        lake.apply(create("folder")).await,
        Err(CatalogError::AlreadyExists { .. })
    ));
    lake.create_as("mine.t", "SELECT 5 AS x").await.unwrap();
    lake.create_as("folder.u", "SELECT 6 AS x").await.unwrap();
    assert!(matches!(
        lake.create_as("nowhere.t", "SELECT 5 AS x").await,
        Err(CatalogError::NotFound { .. })
    ));
    assert!(matches!(
        lake.create_as("system.t", "SELECT 5 AS x").await,
        Err(CatalogError::ReadOnly { .. })
    ));
    lake.restart().await;
    assert_eq!(
        lake.catalog().schemas(),
        ["folder", "information_schema", "mine", "public"]
    );
    assert_eq!(
        lake.sql("SELECT t.x, f.x, u.x FROM mine.t, folder.t AS f, folder.u")
            .await,
        "5 1 6"
    );
    assert!(lake.apply(drop("mine", false)).await.is_err());
    assert!(matches!(
        lake.apply(drop("folder", true)).await,
        Err(CatalogError::ReadOnly { .. })
    ));
    assert!(matches!(
        lake.apply(drop("public", true)).await,
        Err(CatalogError::ReadOnly { .. })
    ));
    lake.apply(drop("mine", true)).await.unwrap();
    assert!(matches!(
        lake.apply(drop("mine", false)).await,
        Err(CatalogError::NotFound { .. })
    ));
    assert_eq!(super::tables_on_disk(lake.folder.path()), 1);
    let listed = lake
        .sql("SELECT schema_name FROM information_schema.schemata ORDER BY 1")
        .await;
    assert_eq!(listed, "folder\npublic");
}
