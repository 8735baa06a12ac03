//! Medians and the table that shows them.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

/// One figure of one contender over several runs.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
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

/// A row of a side-by-side table: what is measured, ours, and the peer's where there is one.
pub struct Row {
    pub name: &'static str,
    pub ours: Samples,
    pub peer: Option<Samples>,
}

pub fn print(peer_name: &str, rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["median (min to max)", "hearth-vmm", peer_name, "ratio"]);
    for row in rows {
        let cell = |s: &Samples| {
            let (low, high) = s.spread();
            format!("{:.1} ({low:.1} to {high:.1})", s.median())
        };
        let peer = row.peer.as_ref();
        table.add_row([
            row.name.to_owned(),
            cell(&row.ours),
            peer.map_or_else(|| "-".into(), cell),
            peer.map_or_else(
                || "-".into(),
                |p| format!("{:.2}", row.ours.median() / p.median()),
            ),
        ]);
    }
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
}
