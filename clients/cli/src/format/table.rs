//! The aligned table, as psql draws it.
//!
//! ```text
//!  id | name          header, names centred
//! ----+------
//!   1 | a             numbers to the right, all else to the left
//!   2 | two          +  a line end inside a value: `+`, and the value goes on below
//!     | lines
//! (2 rows)
//! ```
//!
//! Widths need rows, so rows are held back until [`HELD_CELLS_MAX`] or [`HELD_BYTES_MAX`]; then they are printed and what
//! follows uses their widths. So the memory is bounded, and only a very long result can have a ragged row.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use unicode_width::UnicodeWidthStr;

use super::cells::numeric_columns;
use super::{Columns, Result, ResultWriter, Style};
use crate::error::printable;

const HELD_CELLS_MAX: usize = 1_000_000;
const HELD_BYTES_MAX: usize = 256 << 20;

pub(super) struct Table {
    style: Style,
    held_cells_max: usize,

    names: Vec<String>,
    is_numeric: Vec<bool>,
    widths: Vec<usize>,
    held: Vec<RecordBatch>,
    held_cells: usize,
    held_bytes: usize,
    header_is_out: bool,
    rows: usize,
}

impl Table {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            held_cells_max: HELD_CELLS_MAX,
            names: Vec::new(),
            is_numeric: Vec::new(),
            widths: Vec::new(),
            held: Vec::new(),
            held_cells: 0,
            held_bytes: 0,
            header_is_out: false,
            rows: 0,
        }
    }

    fn measure(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = Columns::new(batch)?;
        let mut cell = String::new();
        for row in 0..columns.rows() {
            for (column, width) in self.widths.iter_mut().enumerate() {
                let cell_width = if columns.read(column, row, &mut cell) {
                    text_width(&cell)
                } else {
                    self.style.null.width()
                };
                *width = (*width).max(cell_width);
            }
        }
        Ok(())
    }

    fn release(&mut self, out: &mut dyn Write) -> Result<()> {
        if !self.header_is_out {
            self.header_is_out = true;
            self.print_header(out)?;
        }
        for batch in std::mem::take(&mut self.held) {
            self.print(&batch, out)?;
        }
        Ok(())
    }

    fn print_header(&self, out: &mut dyn Write) -> Result<()> {
        if self.style.tuples_only {
            return Ok(());
        }
        if let Some(title) = &self.style.title {
            let full = self
                .widths
                .iter()
                .map(|width| width + 3)
                .sum::<usize>()
                .saturating_sub(1);
            let indent = full.saturating_sub(title.width()) / 2;
            writeln!(out, "{}{title}", " ".repeat(indent))?;
        }
        let mut line = String::new();
        for (index, (name, width)) in self.names.iter().zip(&self.widths).enumerate() {
            let space = width - name.width();
            let left = space / 2;
            let bar = if index > 0 { "|" } else { "" };
            line.push_str(&format!(
                "{bar} {}{name}{} ",
                " ".repeat(left),
                " ".repeat(space - left)
            ));
        }
        writeln!(out, "{}", line.trim_end_matches('\n'))?;
        let rules: Vec<String> = self.widths.iter().map(|width| "-".repeat(width + 2)).collect();
        Ok(writeln!(out, "{}", rules.join("+"))?)
    }

    fn print(&self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        let columns = Columns::new(batch)?;
        let mut cells = vec![String::new(); columns.len()];
        let mut line = String::new();
        for row in 0..columns.rows() {
            for (column, cell) in cells.iter_mut().enumerate() {
                if !columns.read(column, row, cell) {
                    cell.push_str(&self.style.null);
                } else if cell.contains(char::is_control) {
                    *cell = visible(cell);
                }
            }
            line.clear();
            self.push_row(&mut line, &cells);
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn push_row(&self, line: &mut String, cells: &[String]) {
        let height = cells.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(1);
        let last = cells.len().saturating_sub(1);
        for level in 0..height {
            for (column, cell) in cells.iter().enumerate() {
                let mut parts = cell.split('\n').skip(level);
                let part = parts.next().unwrap_or_default();
                let goes_on = parts.next().is_some();
                line.push_str(if column > 0 { "| " } else { " " });
                let space = self.widths[column].saturating_sub(part.width());
                if self.is_numeric[column] {
                    push_spaces(line, space);
                    line.push_str(part);
                } else {
                    line.push_str(part);
                    if column < last || goes_on {
                        push_spaces(line, space);
                    }
                }
                if goes_on {
                    line.push('+');
                } else if column < last {
                    line.push(' ');
                }
            }
            line.push('\n');
        }
    }
}

impl ResultWriter for Table {
    fn begin(&mut self, schema: &SchemaRef, _out: &mut dyn Write) -> Result<()> {
        self.names = schema
            .fields()
            .iter()
            .map(|field| visible(field.name()).replace('\n', " "))
            .collect();
        self.is_numeric = numeric_columns(schema);
        self.widths = self
            .names
            .iter()
            .map(|name| if self.style.tuples_only { 0 } else { name.width() })
            .collect();
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
        self.rows += batch.num_rows();
        if self.header_is_out {
            return self.print(batch, out);
        }
        self.measure(batch)?;
        self.held_cells += batch.num_rows() * batch.num_columns();
        self.held_bytes += batch.get_array_memory_size();
        self.held.push(batch.clone());
        if self.held_cells >= self.held_cells_max || self.held_bytes >= HELD_BYTES_MAX {
            self.release(out)?;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> Result<()> {
        self.release(out)?;
        for line in self.style.footer_lines(self.rows) {
            writeln!(out, "{line}")?;
        }
        if !self.style.tuples_only {
            writeln!(out)?;
        }
        Ok(())
    }
}

fn push_spaces(line: &mut String, count: usize) {
    line.extend(std::iter::repeat_n(' ', count));
}

/// A tab's width depends on where it stands, so it is printed as spaces.
fn visible(text: &str) -> String {
    printable(text).replace('\t', "        ")
}

fn text_width(text: &str) -> usize {
    if text.contains(char::is_control) {
        visible(text).split('\n').map(UnicodeWidthStr::width).max().unwrap_or(0)
    } else {
        text.width()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{print, sample, texts};
    use super::super::{Shape, Style};
    use super::*;

    #[test]
    fn numbers_go_right_and_null_is_empty() {
        assert_eq!(
            print(Style::new(Shape::Table), &[sample()]),
            concat!(
                " id |     name     |  ok   | ratio | price \n",
                "----+--------------+-------+-------+-------\n",
                "  1 | a|b          | true  |   0.5 | 10.50\n",
                " 20 |              | false |   NaN |      \n",
                "    | say \"hi\", \\ü |       |       | -0.05\n",
                "(3 rows)\n\n"
            )
        );
    }

    #[test]
    fn null_title_footer_and_tuples_only() {
        let batch = texts(&[("a", &[None])]);
        let style = Style {
            null: "NULL".into(),
            title: Some("List".into()),
            footer: vec!["Primary key: a".into()],
            count_rows: false,
            ..Style::new(Shape::Table)
        };
        assert_eq!(
            print(style.clone(), std::slice::from_ref(&batch)),
            " List\n  a   \n------\n NULL\nPrimary key: a\n\n"
        );
        let style = Style {
            tuples_only: true,
            ..style
        };
        assert_eq!(print(style, &[batch]), " NULL\n");
    }

    #[test]
    fn line_ends_wide_and_control_characters() {
        let batch = texts(&[
            ("t", &[Some("one\ntwo"), Some("日本"), Some("\x1b[2J")]),
            ("u", &[Some("x"), None, None]),
        ]);
        assert_eq!(
            print(Style::new(Shape::Table), &[batch]),
            "    t    | u \n---------+---\n one    +| x\n two     |\u{20}\n 日本    |\u{20}\n \\x1B[2J |\u{20}\n(3 rows)\n\n"
        );
    }

    #[test]
    fn an_empty_result_has_a_header() {
        let style = Style::new(Shape::Table);
        assert_eq!(print(style, &[texts(&[("abc", &[])])]), " abc \n-----\n(0 rows)\n\n");
    }

    #[test]
    fn after_the_limit_rows_are_printed_as_they_come() {
        let mut table = Table::new(Style::new(Shape::Table));
        table.held_cells_max = 2;
        let mut out = Vec::new();
        let first = texts(&[("a", &[Some("x"), Some("yy")])]);
        table.begin(&first.schema(), &mut out).unwrap();
        table.batch(&first, &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), " a  \n----\n x\n yy\n");
        table.batch(&texts(&[("a", &[Some("longer")])]), &mut out).unwrap();
        assert!(String::from_utf8_lossy(&out).ends_with(" longer\n"));
    }
}
