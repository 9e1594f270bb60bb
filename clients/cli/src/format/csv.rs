//! csv and tsv: a header line, then a line per row, printed as batches come.
//!
//! csv follows RFC 4180, except that lines end in a line feed alone. A NULL and an empty text differ, as in PostgreSQL's COPY: NULL
//! is bare, an empty text is quoted. tsv quotes nothing and writes tab, line ends and backslash as `\t`, `\n`, `\r`, `\\`,
//! so that a line is always a row.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{Columns, Result, ResultWriter, Style};

pub(super) struct Delimited {
    style: Style,
    delimiter: char,
    escape: fn(&mut String, &str, &Style),
}

impl Delimited {
    pub(super) fn csv(style: Style) -> Self {
        Self {
            style,
            delimiter: ',',
            escape: push_csv,
        }
    }

    pub(super) fn tsv(style: Style) -> Self {
        Self {
            style,
            delimiter: '\t',
            escape: push_tsv,
        }
    }
}

impl ResultWriter for Delimited {
    fn begin(&mut self, schema: &SchemaRef, out: &mut dyn Write) -> Result<()> {
        if self.style.tuples_only {
            return Ok(());
        }
        let mut line = String::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                line.push(self.delimiter);
            }
            (self.escape)(&mut line, field.name(), &self.style);
        }
        line.push('\n');
        Ok(out.write_all(line.as_bytes())?)
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        let columns = Columns::new(batch)?;
        let mut cell = String::new();
        let mut line = String::new();
        for row in 0..columns.rows() {
            line.clear();
            for column in 0..columns.len() {
                if column > 0 {
                    line.push(self.delimiter);
                }
                if columns.read(column, row, &mut cell) {
                    (self.escape)(&mut line, &cell, &self.style);
                } else {
                    line.push_str(&self.style.null);
                }
            }
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut dyn Write) -> Result<()> {
        Ok(())
    }
}

fn push_csv(line: &mut String, value: &str, style: &Style) {
    let looks_like_null = value == style.null;
    if looks_like_null || value.contains([',', '"', '\n', '\r']) {
        line.push('"');
        for (index, part) in value.split('"').enumerate() {
            if index > 0 {
                line.push_str("\"\"");
            }
            line.push_str(part);
        }
        line.push('"');
    } else {
        line.push_str(value);
    }
}

fn push_tsv(line: &mut String, value: &str, _style: &Style) {
    for c in value.chars() {
        match c {
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\\' => line.push_str("\\\\"),
            c => line.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{print, sample, texts};
    use super::super::{Shape, Style};

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(
            print(Style::new(Shape::Csv), &[sample()]),
            "id,name,ok,ratio,price\n1,a|b,true,0.5,10.50\n20,,false,NaN,\n,\"say \"\"hi\"\", \\ü\",,,-0.05\n"
        );
    }

    #[test]
    fn csv_tells_null_from_text() {
        let batch = texts(&[("a,b", &[None, Some(""), Some("NA"), Some("x\ny")])]);
        assert_eq!(
            print(Style::new(Shape::Csv), std::slice::from_ref(&batch)),
            "\"a,b\"\n\n\"\"\nNA\n\"x\ny\"\n"
        );
        let style = Style {
            null: "NA".into(),
            tuples_only: true,
            ..Style::new(Shape::Csv)
        };
        assert_eq!(print(style, &[batch]), "NA\n\n\"NA\"\n\"x\ny\"\n");
    }

    #[test]
    fn tsv_keeps_a_row_on_a_line() {
        let batch = texts(&[("a", &[Some("x\ty\nz\\")]), ("b", &[None])]);
        assert_eq!(print(Style::new(Shape::Tsv), &[batch]), "a\tb\nx\\ty\\nz\\\\\t\n");
    }
}
