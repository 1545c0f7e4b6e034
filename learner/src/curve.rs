//! The loss curve as a table and as a picture.
use std::path::Path;

use plotters::prelude::*;
use plotters::style::FontStyle;
use serde::{Deserialize, Serialize};

use crate::error::{LearnError, Result};

/// A row of `curve.csv`: means over the steps since the row before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The last step of the row, counted from 1.
    pub step: u32,
    /// Tokens read so far.
    pub tokens: u64,
    /// Seconds trained so far.
    pub seconds: f64,
    /// Loss that is minimised, nats.
    pub loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Validation score of this step (0 to 1), where it was measured.
    pub score: Option<f64>,
}

/// The curve of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve {
    /// Rows in the order of steps.
    pub points: Vec<CurvePoint>,
}

impl Curve {
    /// Reads the rows up to a step; an absent file is an empty curve.
    ///
    /// # Errors
    /// Where the file is no such table.
    pub fn read(path: &Path, until: u32) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let mut reader = csv::Reader::from_path(path).map_err(|e| LearnError::Chart(e.to_string()))?;
        let rows: std::result::Result<Vec<CurvePoint>, _> = reader.deserialize().collect();
        let mut points = rows.map_err(|e| LearnError::Chart(e.to_string()))?;
        points.retain(|point| point.step <= until);
        Ok(Self { points })
    }

    /// Writes the table; the file appears whole.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let failed = |e: csv::Error| LearnError::Chart(e.to_string());
        let temporary = path.with_extension("csv.tmp");
        let mut writer = csv::Writer::from_path(&temporary).map_err(failed)?;
        for point in &self.points {
            writer.serialize(point).map_err(failed)?;
        }
        writer.flush().map_err(LearnError::io(&temporary))?;
        std::fs::rename(&temporary, path).map_err(LearnError::io(path))
    }

    /// Draws loss and validation score over tokens; needs no font of the system.
    ///
    /// # Errors
    /// Where the picture cannot be drawn or written.
    pub fn write_png(&self, path: &Path, title: &str) -> Result<()> {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        // a second registration of the same font changes nothing
        plotters::style::register_font("sans-serif", FontStyle::Normal, font)
            .map_err(|_| LearnError::Chart("the font cannot be used".into()))?;
        self.draw(path, title).map_err(|e| LearnError::Chart(e.to_string()))
    }

    fn draw(&self, path: &Path, title: &str) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let root = BitMapBackend::new(path, (960, 540)).into_drawing_area();
        root.fill(&WHITE)?;
        let millions = |point: &CurvePoint| point.tokens as f64 / 1e6;
        let width = self.points.last().map_or(1.0, millions).max(1e-6);
        let losses = self.points.iter().map(|point| point.loss).filter(|loss| loss.is_finite());
        let height = losses.fold(0.1, f64::max) * 1.05;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 22))
            .margin(14)
            .x_label_area_size(38)
            .y_label_area_size(48)
            .right_y_label_area_size(48)
            .build_cartesian_2d(0.0..width, 0.0..height)?
            .set_secondary_coord(0.0..width, 0.0..1.0);
        chart.configure_mesh().x_desc("million tokens").y_desc("loss (nats)").light_line_style(WHITE).draw()?;
        chart.configure_secondary_axes().y_desc("validation score").draw()?;
        let blue = RGBColor(31, 88, 160);
        let loss = self.points.iter().map(|point| (millions(point), point.loss));
        chart.draw_series(LineSeries::new(loss, &blue))?.label("loss").legend(move |(x, y)| line(x, y, blue));
        let red = RGBColor(190, 60, 40);
        let scores = self.points.iter().filter_map(|point| Some((millions(point), point.score?)));
        chart
            .draw_secondary_series(LineSeries::new(scores, red.stroke_width(2)))?
            .label("validation score")
            .legend(move |(x, y)| line(x, y, red));
        chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()?;
        root.present()?;
        Ok(())
    }
}

fn line(x: i32, y: i32, color: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_written_read_and_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let point = |step: u32| CurvePoint {
            step,
            tokens: u64::from(step) * 1000,
            seconds: 1.5,
            loss: 8.0 / f64::from(step),
            learning_rate: 1e-3,
            grad_norm: 0.5,
            score: step.is_multiple_of(2).then_some(0.25),
        };
        let curve = Curve { points: (1..6).map(point).collect() };
        let path = dir.path().join("curve.csv");
        curve.write_csv(&path).unwrap();
        assert_eq!(Curve::read(&path, 9).unwrap(), curve);
        assert_eq!(Curve::read(&path, 3).unwrap().points.len(), 3);
        assert!(Curve::read(&dir.path().join("none.csv"), 3).unwrap().points.is_empty());
        let png = dir.path().join("curve.png");
        curve.write_png(&png, "rewriter").unwrap();
        assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
        Curve::default().write_png(&png, "nothing yet").unwrap();
    }
}
