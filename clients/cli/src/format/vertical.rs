//! One line per column, one block per row: for rows that are wider than the screen. psql's expanded form.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use unicode_width::UnicodeWidthStr;

use super::{Columns, Result, ResultWriter, Style};
use crate::error::printable;

/// The rule above a row is as long as the batch's widest value, but never longer than a screen.
const RULE_COLUMNS_MAX: usize = 60;

pub(super) struct Vertical {
    style: Style,
    names: Vec<String>,
    name_width: usize,
    rows: usize,
}

impl Vertical {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            names: Vec::new(),
            name_width: 0,
            rows: 0,
        }
    }

    fn rule(&self, value_width: usize) -> String {
        let head = format!("-[ RECORD {} ]", self.rows);
        let left = self.name_width + 1;
        let right = value_width.min(RULE_COLUMNS_MAX) + 1;
        let mut rule = head;
        if rule.len() < left {
            rule.push_str(&"-".repeat(left - rule.len()));
            rule.push('+');
        }
        let full = left + 1 + right;
        rule.push_str(&"-".repeat(full.saturating_sub(rule.len())));
        rule
    }
}

impl ResultWriter for Vertical {
    fn begin(&mut self, schema: &SchemaRef, out: &mut dyn Write) -> Result<()> {
        self.names = schema
            .fields()
            .iter()
            .map(|field| printable(field.name()).replace(['\n', '\t'], " "))
            .collect();
        self.name_width = self.names.iter().map(|name| name.width()).max().unwrap_or(0);
        if let Some(title) = self.style.title.as_ref().filter(|_| !self.style.tuples_only) {
            writeln!(out, "{title}")?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        let columns = Columns::new(batch)?;
        let mut cell = String::new();
        let mut value_width = 0;
        for row in 0..columns.rows() {
            for column in 0..columns.len() {
                columns.read(column, row, &mut cell);
                value_width = value_width.max(cell.lines().map(UnicodeWidthStr::width).max().unwrap_or(0));
            }
        }
        let indent = " ".repeat(self.name_width);
        for row in 0..columns.rows() {
            self.rows += 1;
            if !self.style.tuples_only {
                writeln!(out, "{}", self.rule(value_width))?;
            } else if self.rows > 1 {
                writeln!(out)?;
            }
            for (column, name) in self.names.iter().enumerate() {
                let text = if columns.read(column, row, &mut cell) {
                    printable(&cell)
                } else {
                    self.style.null.clone()
                };
                let text = text.replace('\n', &format!("\n{indent} | "));
                let padding = " ".repeat(self.name_width - name.width());
                let line = format!("{name}{padding} | {text}");
                writeln!(out, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> Result<()> {
        let count_is_seen = self.rows > 0;
        let mut style = self.style.clone();
        style.count_rows &= !count_is_seen;
        for line in style.footer_lines(self.rows) {
            writeln!(out, "{line}")?;
        }
        if !self.style.tuples_only {
            writeln!(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{print, texts};
    use super::super::{Shape, Style};

    #[test]
    fn a_block_per_row() {
        let batch = texts(&[
            ("a", &[Some("x"), None]),
            ("long_name_of_it", &[Some("1\n2"), Some("z")]),
        ]);
        assert_eq!(
            print(Style::new(Shape::Vertical), std::slice::from_ref(&batch)),
            "-[ RECORD 1 ]---+--\na               | x\nlong_name_of_it | 1\n                | 2\n\
             -[ RECORD 2 ]---+--\na               |\nlong_name_of_it | z\n\n"
        );
        assert_eq!(print(Style::new(Shape::Vertical), &[batch.slice(0, 0)]), "(0 rows)\n\n");
    }
}
