//! Tables that are written twice from the same cells: as Markdown for people, rounded, and as CSV
//! for programs, with every digit.

use std::fmt::Write;

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A whole number.
    Count(u64),
    /// There is none.
    Missing,
    /// A number, and how many decimals people get to see.
    Number(f64, usize),
    /// Words.
    Text(String),
}

/// A named table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The name of its file, without the ending.
    pub name: &'static str,
    /// The names of its columns, with units.
    pub columns: Vec<String>,
    /// Its rows, as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(name: &'static str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { name, columns, rows: Vec::new() }
    }

    /// As CSV (RFC 4180, but with line feeds).
    #[must_use]
    pub fn csv(&self) -> String {
        let head: Vec<String> = self.columns.iter().map(|column| quoted(column)).collect();
        let mut csv = head.join(",") + "\n";
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(Cell::exact).collect();
            csv += &(cells.join(",") + "\n");
        }
        csv
    }

    /// As a table of Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("| {} |\n|", self.columns.join(" | "));
        for n in 0..self.columns.len() {
            let words = self.rows.first().is_some_and(|row| matches!(row[n], Cell::Text(_)));
            text += if words { "---|" } else { "---:|" };
        }
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(Cell::rounded).collect();
            writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes everything");
        }
        text
    }
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A number if there is one.
    #[must_use]
    pub fn number(number: Option<f64>, decimals: usize) -> Self {
        number.map_or(Self::Missing, |number| Self::Number(number, decimals))
    }

    fn exact(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Missing => String::new(),
            Self::Number(number, _) => number.to_string(),
            Self::Text(text) => quoted(text),
        }
    }

    fn rounded(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Missing => "-".to_owned(),
            Self::Number(number, decimals) => format!("{number:.decimals$}"),
            Self::Text(text) => text.clone(),
        }
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_have_the_same_cells() {
        let mut table = Table::new("t", &["name", "ratio (1)", "bids"]);
        table.rows.push(vec![Cell::text("a, \"b\""), Cell::Number(1.0 / 3.0, 2), Cell::Count(7)]);
        table.rows.push(vec![Cell::text("c"), Cell::Missing, Cell::number(Some(2.0), 1)]);
        assert_eq!(
            table.csv(),
            "name,ratio (1),bids\n\"a, \"\"b\"\"\",0.3333333333333333,7\nc,,2\n"
        );
        assert_eq!(
            table.markdown(),
            "| name | ratio (1) | bids |\n|---|---:|---:|\n| a, \"b\" | 0.33 | 7 |\n| c | - | 2.0 |\n"
        );
    }
}
