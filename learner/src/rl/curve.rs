//! The run as a table and as a picture.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use plotters::style::FontStyle;

use super::metrics::StepMetrics;
use super::training::Look;
use crate::error::{LearnError, Result};

const TABLE: &str = "steps.csv";
const PICTURE: &str = "steps.png";

/// A column of the table: its name, and its number in a step's figures.
type Column = (&'static str, fn(&StepMetrics) -> Option<f64>);

/// The table's columns after the number of the step; the parts of the reward follow them.
const COLUMNS: [Column; 24] = [
    ("reward", |m| Some(m.reward_mean)),
    ("reward_deviation", |m| Some(m.reward_deviation)),
    ("kl_reference", |m| m.kl_reference),
    ("approx_kl", |m| Some(m.approx_kl)),
    ("entropy", |m| Some(m.entropy)),
    ("clip_fraction_first", |m| m.clip_fraction.first().copied()),
    ("clip_fraction_last", |m| m.clip_fraction.last().copied()),
    ("length", |m| Some(m.length_mean)),
    ("truncated_share", |m| Some(m.truncated_share)),
    ("zero_variance_share", |m| Some(m.zero_variance_share)),
    ("invalid_share", |m| Some(m.invalid_share)),
    ("copied_share", |m| Some(m.copied_share)),
    ("duplicate_share", |m| Some(m.duplicate_share)),
    ("unscored_share", |m| Some(m.unscored_share)),
    ("stale_share", |m| Some(m.stale_share)),
    ("on_policy_deviation", |m| Some(m.on_policy_deviation)),
    ("loss", |m| Some(m.loss)),
    ("grad_norm", |m| Some(m.grad_norm)),
    ("value_loss", |m| m.value_loss),
    ("explained_variance", |m| m.explained_variance),
    ("samples", |m| Some(m.samples as f64)),
    ("tokens", |m| Some(m.tokens as f64)),
    ("roll_seconds", |m| Some(m.roll_seconds)),
    ("learn_seconds", |m| Some(m.learn_seconds)),
];

/// Parts of the reward that have a column; what has none is absent there.
const PARTS: [&str; 7] = ["judge", "retrieval", "bonus", "judge_score", "quality", "top1", "win"];

/// Steps over which the picture's lines are smoothed.
const SMOOTH: usize = 10;

/// Figures of a run, step by step.
pub(super) struct RlCurve {
    dir: PathBuf,
    rows: Vec<BTreeMap<String, f64>>,
}

impl RlCurve {
    /// The curve of a run's folder up to a step; what came after it is made again.
    pub(super) fn open(dir: &Path, steps: u64) -> Result<Self> {
        let path = dir.join(TABLE);
        let mut rows = Vec::new();
        if steps > 0 && path.exists() {
            let mut reader = csv::Reader::from_path(&path).map_err(chart)?;
            for row in reader.deserialize::<BTreeMap<String, Option<f64>>>() {
                let row: BTreeMap<String, f64> =
                    row.map_err(chart)?.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
                rows.push(row);
            }
            rows.retain(|row| row.get("step").is_some_and(|step| *step < steps as f64));
        }
        Ok(Self { dir: dir.to_owned(), rows })
    }

    pub(super) fn push(&mut self, metrics: &StepMetrics) {
        let mut row = BTreeMap::from([("step".to_owned(), metrics.step as f64)]);
        row.extend(COLUMNS.iter().filter_map(|(name, of)| Some(((*name).to_owned(), of(metrics)?))));
        row.extend(PARTS.iter().filter_map(|name| Some(((*name).to_owned(), *metrics.parts.get(*name)?))));
        self.rows.push(row);
    }

    /// Writes the table, and a picture of what matters most.
    pub(super) fn write(&self, looks: &[Look]) -> Result<()> {
        let path = self.dir.join(TABLE);
        let temporary = path.with_extension("csv.tmp");
        let mut writer = csv::Writer::from_path(&temporary).map_err(chart)?;
        let names: Vec<&str> =
            std::iter::once("step").chain(COLUMNS.iter().map(|(name, _)| *name)).chain(PARTS).collect();
        writer.write_record(&names).map_err(chart)?;
        for row in &self.rows {
            let cell = |name: &&str| row.get(*name).map(f64::to_string).unwrap_or_default();
            writer.write_record(names.iter().map(cell)).map_err(chart)?;
        }
        writer.flush().map_err(LearnError::io(&temporary))?;
        std::fs::rename(&temporary, &path).map_err(LearnError::io(&path))?;
        // a second registration of the same font changes nothing
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        plotters::style::register_font("sans-serif", FontStyle::Normal, font)
            .map_err(|_| LearnError::Chart("the font cannot be used".into()))?;
        self.draw(looks).map_err(|e| LearnError::Chart(e.to_string()))
    }

    /// Values of a column by step, as means over the last [`SMOOTH`] steps that have one.
    fn smooth(&self, name: &str) -> Vec<(f64, f64)> {
        let values: Vec<(f64, f64)> =
            self.rows.iter().filter_map(|row| Some((*row.get("step")?, *row.get(name)?))).collect();
        let mean = |end: usize| {
            let part = &values[(end + 1).saturating_sub(SMOOTH)..=end];
            part.iter().map(|(_, value)| value).sum::<f64>() / part.len() as f64
        };
        (0..values.len()).map(|place| (values[place].0, mean(place))).collect()
    }

    fn draw(&self, looks: &[Look]) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let path = self.dir.join(PICTURE);
        let root = BitMapBackend::new(&path, (1100, 760)).into_drawing_area();
        root.fill(&WHITE)?;
        let last = self.rows.iter().filter_map(|row| row.get("step")).fold(1.0, |a: f64, b| a.max(*b));
        let held = |name: &str| -> Vec<(f64, f64)> {
            let of = |look: &Look| match name {
                "reward" => Some(look.evaluation.reward),
                part => look.evaluation.parts.get(part).copied(),
            };
            looks.iter().filter_map(|look| Some((look.step as f64, of(look)?))).collect()
        };
        let panels: [(&str, &[&str]); 6] = [
            ("reward, and held out", &["reward"]),
            ("first hit relevant, and held out", &["top1"]),
            ("wins over the baseline, and held out", &["win"]),
            ("entropy, nats a token", &["entropy"]),
            ("KL to the reference, nats a token", &["kl_reference"]),
            ("shares: no variance, copies, repeats", &["zero_variance_share", "copied_share", "duplicate_share"]),
        ];
        let colors = [RGBColor(31, 88, 160), RGBColor(60, 150, 80), RGBColor(150, 90, 160)];
        let red = RGBColor(190, 60, 40);
        for (area, (title, names)) in root.split_evenly((3, 2)).iter().zip(panels) {
            let lines: Vec<Vec<(f64, f64)>> = names.iter().map(|name| self.smooth(name)).collect();
            let dots = held(names[0]);
            let all = || lines.iter().flatten().chain(&dots).map(|(_, y)| *y).filter(|y| y.is_finite());
            let (low, high) = (all().fold(0.0, f64::min), all().fold(1e-3, f64::max));
            let mut chart = ChartBuilder::on(area)
                .caption(title, ("sans-serif", 17))
                .margin(10)
                .x_label_area_size(24)
                .y_label_area_size(44)
                .build_cartesian_2d(0.0..last, low * 1.05..high * 1.05)?;
            chart.configure_mesh().light_line_style(WHITE).draw()?;
            for (line, color) in lines.into_iter().zip(colors) {
                chart.draw_series(LineSeries::new(line, &color))?;
            }
            chart.draw_series(dots.into_iter().map(|at| Circle::new(at, 4, red.filled())))?;
        }
        root.present()?;
        Ok(())
    }
}

fn chart(error: csv::Error) -> LearnError {
    LearnError::Chart(error.to_string())
}
