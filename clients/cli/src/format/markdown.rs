//! A Markdown table, printed as batches come; it renders the same without padded columns.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::cells::numeric_columns;
use super::{Columns, Result, ResultWriter, Style};
use crate::error::printable;

pub(super) struct Markdown {
    style: Style,
    rows: usize,
}

impl Markdown {
    pub(super) fn new(style: Style) -> Self {
        Self { style, rows: 0 }
    }
}

impl ResultWriter for Markdown {
    fn begin(&mut self, schema: &SchemaRef, out: &mut dyn Write) -> Result<()> {
        if self.style.tuples_only {
            return Ok(());
        }
        if let Some(title) = &self.style.title {
            writeln!(out, "**{}**\n", escaped(title))?;
        }
        let mut names = String::from("|");
        let mut rule = String::from("|");
        for (field, is_numeric) in schema.fields().iter().zip(numeric_columns(schema)) {
            names.push_str(&format!(" {} |", escaped(field.name())));
            rule.push_str(if is_numeric { "---:|" } else { "---|" });
        }
        Ok(writeln!(out, "{names}\n{rule}")?)
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        let columns = Columns::new(batch)?;
        let mut cell = String::new();
        for row in 0..columns.rows() {
            let mut line = String::from("|");
            for column in 0..columns.len() {
                let text = if columns.read(column, row, &mut cell) {
                    escaped(&cell)
                } else {
                    escaped(&self.style.null)
                };
                line.push(' ');
                line.push_str(&text);
                line.push_str(" |");
            }
            writeln!(out, "{line}")?;
        }
        self.rows += columns.rows();
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> Result<()> {
        let footer = self.style.footer_lines(self.rows);
        if !footer.is_empty() {
            writeln!(out)?;
        }
        for line in footer {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    printable(text).replace('|', "\\|").replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{print, sample, texts};
    use super::super::{Shape, Style};

    #[test]
    fn pipes_are_escaped_and_numbers_aligned() {
        assert_eq!(
            print(Style::new(Shape::Markdown), &[sample()]),
            "| id | name | ok | ratio | price |\n|---:|---|---|---:|---:|\n| 1 | a\\|b | true | 0.5 | 10.50 |\n\
             | 20 |  | false | NaN |  |\n|  | say \"hi\", \\ü |  |  | -0.05 |\n\n(3 rows)\n"
        );
    }

    #[test]
    fn line_ends_stay_inside_the_row() {
        let style = Style {
            tuples_only: true,
            ..Style::new(Shape::Markdown)
        };
        assert_eq!(print(style, &[texts(&[("a", &[Some("x\ny")])])]), "| x<br>y |\n");
    }
}
