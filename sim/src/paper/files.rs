//! The files of a report.

use std::{fs, io, path::Path};

use super::table::Table;

/// Files by name, ready to be written.
pub type Files = Vec<(String, String)>;

/// Writes all files of a report into a folder.
///
/// # Errors
/// If a file can't be written.
pub fn write(folder: &Path, files: &Files) -> io::Result<()> {
    files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

/// A table as a file.
#[must_use]
pub fn csv(table: &Table) -> (String, String) {
    (format!("{}.csv", table.name), table.csv())
}
