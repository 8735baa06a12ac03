//! Medians and the table that shows them.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

/// One figure of one contender over several runs.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle value, or NaN of none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn spread(&self) -> (f64, f64) {
        let low = self.0.iter().copied().fold(f64::NAN, f64::min);
        let high = self.0.iter().copied().fold(f64::NAN, f64::max);
        (low, high)
    }
}

/// A row of a side-by-side table: what is measured, and each contender's figures, ours first. One without
/// figures could not be asked.
pub struct Row {
    pub name: &'static str,
    pub contenders: Vec<Samples>,
}

/// `names` are the contenders', ours first. Peers' cells end with the ratio of ours to theirs.
pub fn print(names: &[&str], rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["median (min to max; ours / theirs)"].iter().chain(names));
    for row in rows {
        let ours = row.contenders.first().map_or(f64::NAN, Samples::median);
        let cells = row.contenders.iter().enumerate().map(|(index, samples)| {
            if samples.is_empty() {
                return "-".to_owned();
            }
            let (low, high) = samples.spread();
            let cell = format!("{:.1} ({low:.1} to {high:.1}", samples.median());
            if index == 0 {
                format!("{cell})")
            } else {
                format!("{cell}; {:.2})", ours / samples.median())
            }
        });
        table.add_row(std::iter::once(row.name.to_owned()).chain(cells));
    }
    for column in 1..=names.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}
