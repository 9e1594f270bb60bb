//! Catalog commands: exactly the reference schemas of the Flight SQL specification, and contents that tools rely on.

use arrow::array::{Array, BinaryArray, Int32Array, RecordBatch, StringArray, UInt32Array, UnionArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::metadata::{SqlInfoDataBuilder, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo,
};

use crate::client::{Answer, Client, schema_of};
use crate::server::Server;

async fn fixture() -> (tempfile::TempDir, Server, Client) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut client = server.client().await;
    for sql in [
        "CREATE TABLE customer (id BIGINT NOT NULL, name VARCHAR, balance DECIMAL(15, 2), born DATE, PRIMARY KEY (id))",
        "CREATE TABLE orders (id BIGINT NOT NULL, customer_id BIGINT, placed TIMESTAMP, \
         PRIMARY KEY (id), FOREIGN KEY (customer_id) REFERENCES customer (id))",
        "CREATE SCHEMA sales",
        "CREATE TABLE sales.region (id INT)",
        "CREATE VIEW rich AS SELECT id, name FROM customer WHERE balance > 1000",
    ] {
        client
            .query(sql)
            .await
            .unwrap_or_else(|status| panic!("{sql}: {status}"));
    }
    (data, server, client)
}

fn columns(schema: &Schema) -> Vec<(String, DataType, bool)> {
    schema
        .fields()
        .iter()
        .map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable()))
        .collect()
}

#[track_caller]
fn exactly(answer: &Answer, reference: &Schema) {
    assert_eq!(columns(&answer.schema), columns(reference));
}

/// Names in `column` of all rows of `answer` that are users' own.
fn names(answer: &Answer, column: usize) -> Vec<String> {
    let own = |row: &Vec<String>| {
        row.get(1)
            .is_none_or(|schema| !["information_schema", "system"].contains(&schema.as_str()))
    };
    answer
        .rows()
        .into_iter()
        .filter(own)
        .map(|row| row[column].clone())
        .collect()
}

#[tokio::test]
async fn catalogs_and_schemas() {
    let (_data, _server, mut client) = fixture().await;
    let catalogs = client.command(CommandGetCatalogs {}).await.unwrap();
    exactly(&catalogs, &CommandGetCatalogs {}.into_builder().schema());
    assert_eq!(catalogs.rows(), [["trireme"]]);

    let all = client.command(CommandGetDbSchemas::default()).await.unwrap();
    exactly(&all, &CommandGetDbSchemas::default().into_builder().schema());
    let schemas: Vec<_> = all.rows().into_iter().map(|row| row[1].clone()).collect();
    assert_eq!(
        schemas,
        ["information_schema", "public", "sales", "system"],
        "ordered by name"
    );

    let filtered = |catalog: Option<&str>, pattern: Option<&str>| CommandGetDbSchemas {
        catalog: catalog.map(str::to_owned),
        db_schema_filter_pattern: pattern.map(str::to_owned),
    };
    for (command, wanted) in [
        (filtered(None, Some("s_l%")), vec!["sales"]),
        (filtered(Some("trireme"), Some("public")), vec!["public"]),
        (filtered(Some("elsewhere"), None), vec![]),
        (filtered(None, Some("%ublic")), vec!["public"]),
        (filtered(None, Some("nothing")), vec![]),
    ] {
        let answer = client.command(command.clone()).await.unwrap();
        let schemas: Vec<_> = answer.rows().into_iter().map(|row| row[1].clone()).collect();
        assert_eq!(schemas, wanted, "{command:?}");
    }
}

#[tokio::test]
async fn tables_with_and_without_schema() {
    let (_data, _server, mut client) = fixture().await;
    for include_schema in [false, true] {
        let command = CommandGetTables {
            include_schema,
            ..Default::default()
        };
        let answer = client.command(command.clone()).await.unwrap();
        exactly(&answer, &command.into_builder().schema());
        assert_eq!(answer.schema.fields().len(), if include_schema { 5 } else { 4 });
        let own = names(&answer, 2);
        for table in ["customer", "orders", "region", "rich"] {
            assert!(own.contains(&table.to_owned()), "{table} is not in {own:?}");
        }
        // Even an empty answer has the right columns.
        let none = CommandGetTables {
            include_schema,
            catalog: Some("elsewhere".into()),
            ..Default::default()
        };
        let none = client.command(none).await.unwrap();
        assert!(none.rows().is_empty());
        assert_eq!(none.schema, answer.schema);
    }
}

#[tokio::test]
async fn tables_are_filtered() {
    let (_data, _server, mut client) = fixture().await;
    let table = |pattern: &str| CommandGetTables {
        table_name_filter_pattern: Some(pattern.into()),
        ..Default::default()
    };
    assert_eq!(names(&client.command(table("c%")).await.unwrap(), 2), ["customer"]);
    assert_eq!(names(&client.command(table("_rders")).await.unwrap(), 2), ["orders"]);
    let schema = CommandGetTables {
        db_schema_filter_pattern: Some("sal%".into()),
        ..Default::default()
    };
    assert_eq!(names(&client.command(schema).await.unwrap(), 2), ["region"]);
    let views = CommandGetTables {
        table_types: vec!["VIEW".into()],
        ..Default::default()
    };
    assert_eq!(names(&client.command(views).await.unwrap(), 2), ["rich"]);
    let types = client.command(CommandGetTableTypes {}).await.unwrap();
    exactly(&types, &CommandGetTableTypes {}.into_builder().schema());
    let types: Vec<_> = types.rows().into_iter().map(|row| row[0].clone()).collect();
    for kind in ["TABLE", "VIEW"] {
        assert!(types.iter().any(|t| t.ends_with(kind)), "{kind} is not in {types:?}");
    }
    let listed = client.command(CommandGetTables::default()).await.unwrap();
    for row in listed.rows() {
        assert!(
            types.contains(&row[3]),
            "{row:?} has a type that GetTableTypes does not name"
        );
    }
}

/// Column metadata without which Power BI and DBeaver show nothing or the wrong thing.
#[tokio::test]
async fn columns_carry_their_metadata() {
    let (_data, _server, mut client) = fixture().await;
    let command = CommandGetTables {
        include_schema: true,
        table_name_filter_pattern: Some("customer".into()),
        ..Default::default()
    };
    let answer = client.command(command).await.unwrap();
    let batch = answer
        .batches
        .iter()
        .find(|batch| batch.num_rows() == 1)
        .expect("one table");
    let bytes = batch
        .column(4)
        .as_any()
        .downcast_ref::<BinaryArray>()
        .unwrap()
        .value(0)
        .to_vec();
    let schema = schema_of(bytes.into());
    assert_eq!(
        columns(&schema),
        [
            ("id".to_owned(), DataType::Int64, false),
            ("name".to_owned(), DataType::Utf8, true),
            ("balance".to_owned(), DataType::Decimal128(15, 2), true),
            ("born".to_owned(), DataType::Date32, true),
        ]
    );
    let key = |name: &str| format!("ARROW:FLIGHT:SQL:{name}");
    for field in schema.fields() {
        let metadata = field.metadata();
        assert_eq!(
            metadata.get(&key("TABLE_NAME")).map(String::as_str),
            Some("customer"),
            "{field}"
        );
        assert_eq!(
            metadata.get(&key("SCHEMA_NAME")).map(String::as_str),
            Some("public"),
            "{field}"
        );
        assert_eq!(
            metadata.get(&key("CATALOG_NAME")).map(String::as_str),
            Some("trireme"),
            "{field}"
        );
        assert!(
            metadata.get(&key("TYPE_NAME")).is_some_and(|name| !name.is_empty()),
            "{field} has no TYPE_NAME"
        );
        assert_eq!(
            metadata.get(&key("IS_AUTO_INCREMENT")).map(String::as_str),
            Some("0"),
            "{field}"
        );
    }
    let balance = schema.field_with_name("balance").unwrap().metadata();
    assert_eq!(balance.get(&key("PRECISION")).map(String::as_str), Some("15"));
    assert_eq!(balance.get(&key("SCALE")).map(String::as_str), Some("2"));
}

fn primary_keys_schema() -> Schema {
    Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ])
}

fn foreign_keys_schema() -> Schema {
    Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ])
}

#[tokio::test]
async fn keys() {
    let (_data, _server, mut client) = fixture().await;
    let primary = |table: &str| CommandGetPrimaryKeys {
        table: table.into(),
        ..Default::default()
    };
    let answer = client.command(primary("orders")).await.unwrap();
    exactly(&answer, &primary_keys_schema());
    assert_eq!(answer.rows().len(), 1);
    assert_eq!(answer.rows()[0][..4], ["trireme", "public", "orders", "id"]);
    assert_eq!(answer.rows()[0][5], "1");
    assert!(client.command(primary("nothing")).await.unwrap().rows().is_empty());

    let pair = ["customer", "id", "orders", "customer_id"];
    let shown = |answer: &Answer| -> Vec<[String; 4]> {
        answer
            .rows()
            .iter()
            .map(|r| [r[2].clone(), r[3].clone(), r[6].clone(), r[7].clone()])
            .collect()
    };
    let imported = CommandGetImportedKeys {
        table: "orders".into(),
        ..Default::default()
    };
    let imported = client.command(imported).await.unwrap();
    exactly(&imported, &foreign_keys_schema());
    assert_eq!(shown(&imported), [pair]);
    let exported = CommandGetExportedKeys {
        table: "customer".into(),
        ..Default::default()
    };
    let exported = client.command(exported).await.unwrap();
    exactly(&exported, &foreign_keys_schema());
    assert_eq!(shown(&exported), [pair]);
    let cross = CommandGetCrossReference {
        pk_table: "customer".into(),
        fk_table: "orders".into(),
        ..Default::default()
    };
    let cross = client.command(cross).await.unwrap();
    exactly(&cross, &foreign_keys_schema());
    assert_eq!(shown(&cross), [pair]);
    let none = CommandGetExportedKeys {
        table: "orders".into(),
        ..Default::default()
    };
    let none = client.command(none).await.unwrap();
    exactly(&none, &foreign_keys_schema());
    assert!(none.rows().is_empty());
}

fn codes(batch: &RecordBatch) -> Vec<u32> {
    batch
        .column(0)
        .as_any()
        .downcast_ref::<UInt32Array>()
        .unwrap()
        .values()
        .to_vec()
}

/// Old JDBC drivers fail on any code that is missing, so every code of the protocol is answered.
#[tokio::test]
async fn sql_info_answers_every_code() {
    let (_data, _server, mut client) = fixture().await;
    let all = client.command(CommandGetSqlInfo { info: vec![] }).await.unwrap();
    exactly(&all, SqlInfoDataBuilder::schema());
    let given: Vec<_> = all.batches.iter().flat_map(codes).collect();
    let missing: Vec<_> = (0..2000)
        .filter_map(|code| SqlInfo::try_from(code).ok())
        .filter(|code| !given.contains(&(*code as u32)))
        .map(|code| code.as_str_name())
        .collect();
    assert!(missing.is_empty(), "no answer for {missing:?}");

    let union = |batch: &RecordBatch| batch.column(1).as_any().downcast_ref::<UnionArray>().unwrap().clone();
    for batch in &all.batches {
        let values = union(batch);
        assert!((0..batch.num_rows()).all(|row| (0..=5).contains(&values.type_id(row))));
    }
    let wanted = vec![
        SqlInfo::FlightSqlServerTransaction as u32,
        SqlInfo::FlightSqlServerName as u32,
    ];
    let some = client
        .command(CommandGetSqlInfo { info: wanted.clone() })
        .await
        .unwrap();
    let mut given: Vec<_> = some.batches.iter().flat_map(codes).collect();
    given.sort_unstable();
    let mut sorted = wanted;
    sorted.sort_unstable();
    assert_eq!(given, sorted, "exactly the codes asked for");
    let batch = some
        .batches
        .iter()
        .find(|batch| batch.num_rows() == 2)
        .expect("one batch");
    let row = codes(batch)
        .iter()
        .position(|code| *code == SqlInfo::FlightSqlServerTransaction as u32)
        .unwrap();
    let values = union(batch);
    assert_eq!(values.type_id(row), 3, "ADBC reads transaction support as int32 only");
    let value = values.value(row);
    assert_eq!(
        value.as_any().downcast_ref::<Int32Array>().unwrap().value(0),
        0,
        "no transactions are announced"
    );
}

#[tokio::test]
async fn xdbc_type_info() {
    let (_data, _server, mut client) = fixture().await;
    let all = client
        .command(CommandGetXdbcTypeInfo { data_type: None })
        .await
        .unwrap();
    exactly(&all, &XdbcTypeInfoDataBuilder::new().build().unwrap().schema());
    let codes = |answer: &Answer| -> Vec<i32> {
        let of = |batch: &RecordBatch| {
            batch
                .column(1)
                .as_any()
                .downcast_ref::<Int32Array>()
                .unwrap()
                .values()
                .to_vec()
        };
        answer.batches.iter().flat_map(of).collect()
    };
    let given = codes(&all);
    assert!(given.len() >= 10, "{given:?}");
    assert!(given.is_sorted(), "ordered by data type: {given:?}");
    // XDBC: 12 VARCHAR, 4 INTEGER, -5 BIGINT, 3 DECIMAL
    for code in [12, 4, -5, 3] {
        assert!(given.contains(&code), "{code} is not in {given:?}");
        let one = client
            .command(CommandGetXdbcTypeInfo { data_type: Some(code) })
            .await
            .unwrap();
        exactly(&one, &all.schema);
        assert!(!codes(&one).is_empty() && codes(&one).iter().all(|found| *found == code));
    }
    let none = client
        .command(CommandGetXdbcTypeInfo {
            data_type: Some(99_999),
        })
        .await
        .unwrap();
    assert!(none.rows().is_empty());
    let first = all.batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    assert!(
        first
            .column(0)
            .as_any()
            .downcast_ref::<StringArray>()
            .is_some_and(|names| !names.value(0).is_empty())
    );
}
