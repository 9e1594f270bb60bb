//! json (an array, a row per line) and jsonl (a row per line), printed as batches come.
//!
//! arrow-json writes the rows: numbers and booleans stay what they are, nested values nest, NULL is `null`. A type that it
//! does not know (a union) is printed as its text rather than failing the result.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;

use super::{Columns, Result, ResultWriter};

pub(super) struct Json {
    is_array: bool,
    has_rows: bool,
}

impl Json {
    pub(super) fn array() -> Self {
        Self {
            is_array: true,
            has_rows: false,
        }
    }

    pub(super) fn lines() -> Self {
        Self {
            is_array: false,
            has_rows: false,
        }
    }
}

impl ResultWriter for Json {
    fn begin(&mut self, _schema: &SchemaRef, out: &mut dyn Write) -> Result<()> {
        if self.is_array {
            out.write_all(b"[")?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut lines = Vec::new();
        if batch.num_columns() == 0 {
            lines = b"{}\n".repeat(batch.num_rows());
        } else {
            let batch = without_unions(batch)?;
            let mut writer = WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, LineDelimited>(&mut lines);
            writer.write(&batch)?;
            writer.finish()?;
        }
        if !self.is_array {
            return Ok(out.write_all(&lines)?);
        }
        // A line feed inside a JSON text is always escaped, so each line is one row.
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            out.write_all(if self.has_rows { b",\n " } else { b"" })?;
            out.write_all(line)?;
            self.has_rows = true;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> Result<()> {
        if self.is_array {
            out.write_all(b"]\n")?;
        }
        Ok(())
    }
}

fn holds_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds_union(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_union(field.data_type())),
        DataType::Dictionary(_, value) => holds_union(value),
        _ => false,
    }
}

fn without_unions(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| holds_union(field.data_type())) {
        return Ok(batch.clone());
    }
    let texts = Columns::new(batch)?;
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (index, field) in schema.fields().iter().enumerate() {
        if !holds_union(field.data_type()) {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(batch.column(index)));
            continue;
        }
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
        let column: StringArray = (0..texts.rows())
            .map(|row| {
                let mut text = String::new();
                texts.read(index, row, &mut text).then_some(text)
            })
            .collect();
        columns.push(Arc::new(column));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, ListArray, StructArray};
    use arrow::datatypes::Int32Type;

    use super::super::testing::{print, sample};
    use super::super::{Shape, Style};
    use super::*;

    #[test]
    fn values_keep_their_kind() {
        assert_eq!(
            print(Style::new(Shape::Jsonl), &[sample()]),
            concat!(
                r#"{"id":1,"name":"a|b","ok":true,"ratio":0.5,"price":10.50}"#,
                "\n",
                r#"{"id":20,"name":null,"ok":false,"ratio":null,"price":null}"#,
                "\n",
                r#"{"id":null,"name":"say \"hi\", \\ü","ok":null,"ratio":null,"price":-0.05}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_array_is_one_document() {
        let text = print(Style::new(Shape::Json), &[sample(), sample()]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_array().unwrap().len(), 6);
        let empty = print(Style::new(Shape::Json), &[sample().slice(0, 0)]);
        assert_eq!(empty, "[]\n");
    }

    #[test]
    fn nested_values_nest() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None])]);
        let inner = StructArray::from(vec![(
            Arc::new(Field::new("b", DataType::Int32, false)),
            Arc::new(Int32Array::from(vec![7])) as ArrayRef,
        )]);
        let batch = RecordBatch::try_from_iter(vec![
            ("l", Arc::new(list) as ArrayRef),
            ("s", Arc::new(inner) as ArrayRef),
        ])
        .unwrap();
        assert_eq!(
            print(Style::new(Shape::Jsonl), &[batch]),
            "{\"l\":[1,null],\"s\":{\"b\":7}}\n"
        );
    }
}
