//! Plots as SVG text: ranges by category, and lines over a logarithmic grid.
//!
//! Colours are those of Okabe and Ito, which people with any kind of colour vision can tell apart;
//! each series has a marker of its own as well, so that a plot can be read without any colour.

use std::ops::Range;

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    element::DashedPathElement,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use thiserror::Error;

/// A plot could not be drawn.
#[derive(Debug, Error)]
#[error("cannot draw {title:?}: {cause}")]
pub struct PlotError {
    title: String,
    cause: String,
}

/// For each category a range for each series, side by side, over a linear axis.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// What it shows.
    pub title: String,
    /// The axis and its unit.
    pub x: String,
    /// Where the axis begins; it ends behind the largest value.
    pub x_from: f64,
    /// Names of the series, for the legend.
    pub series: Vec<String>,
    /// The categories from the top: a name, and a range for each series.
    pub rows: Vec<(String, Vec<Option<Spread>>)>,
    /// A shaded band, and what it means.
    pub band: Option<(Range<f64>, String)>,
}

/// The least, the middle and the most of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub low: f64,
    /// The middle.
    pub middle: f64,
    /// The most.
    pub high: f64,
}

/// Lines over two logarithmic axes.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// What it shows.
    pub title: String,
    /// The horizontal axis and its unit.
    pub x: String,
    /// The vertical axis and its unit.
    pub y: String,
    /// Name, and points with positive coordinates in the order of the first.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

/// Lines over time, from zero on both axes, with what happened on the way.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// What it shows.
    pub title: String,
    /// The horizontal axis and its unit.
    pub x: String,
    /// The vertical axis and its unit.
    pub y: String,
    /// Name, and points in the order of the first coordinate.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
    /// What happened, and when.
    pub marks: Vec<(f64, String)>,
}

impl Ranges {
    /// As an SVG document.
    ///
    /// # Errors
    /// If it can't be drawn.
    pub fn svg(&self) -> Result<String, PlotError> {
        let height = HEAD + FOOT + ROW * self.rows.len() as i32;
        drawn(&self.title, height, |root| self.draw(root, height))
    }

    fn draw(&self, root: &Area<'_>, height: i32) -> Drawing {
        let chart = Frame::new(root, WIDE_LEFT, height, self.axis(), self.rows.len() as f64..0.0);
        self.shade(&chart)?;
        for tick in linear_ticks(&self.axis()) {
            chart.tick_x(tick, &format!("{tick}"))?;
        }
        chart.label_x(&self.x)?;
        for (at, (name, spreads)) in self.rows.iter().enumerate() {
            chart.category(at as f64 + 0.5, name)?;
            self.row(&chart, at as f64, spreads)?;
        }
        let names = self.series.iter().enumerate().map(|(n, name)| (Look::of(n), name.as_str()));
        chart.legend(names)
    }

    fn axis(&self) -> Range<f64> {
        let spreads = self.rows.iter().flat_map(|(_, spreads)| spreads.iter().flatten());
        let band = self.band.as_ref().map_or(0.0, |(band, _)| band.end);
        let most = spreads.map(|spread| spread.high).fold(band, f64::max);
        self.x_from..self.x_from + (most - self.x_from).max(1e-9) * 1.03
    }

    fn shade(&self, chart: &Frame<'_, '_>) -> Drawing {
        let Some((band, meaning)) = &self.band else { return Ok(()) };
        let (rows, axis) = (self.rows.len() as f64, self.axis());
        let (from, to) = (chart.at(band.start, 0.0), chart.at(band.end.min(axis.end), rows));
        chart.root.draw(&Rectangle::new([from, to], BAND.filled()))?;
        let middle = (i32::midpoint(from.0, to.0), from.1 - 4);
        chart.text(meaning, middle, SMALL, (HPos::Center, VPos::Bottom))
    }

    fn row(&self, chart: &Frame<'_, '_>, at: f64, spreads: &[Option<Spread>]) -> Drawing {
        let step = 1.0 / (self.series.len() as f64 + 1.0);
        for (n, spread) in spreads.iter().enumerate() {
            let Some(spread) = spread else { continue };
            let (look, y) = (Look::of(n), at + step * (n as f64 + 1.0));
            let line = vec![chart.at(spread.low, y), chart.at(spread.high, y)];
            chart.root.draw(&PathElement::new(line, look.color.stroke_width(2)))?;
            chart.marker(look, chart.at(spread.middle, y))?;
        }
        let rule = vec![chart.at(self.axis().start, at), chart.at(self.axis().end, at)];
        chart.root.draw(&PathElement::new(rule, GRID))
    }
}

impl Lines {
    /// As an SVG document.
    ///
    /// # Errors
    /// If it can't be drawn.
    pub fn svg(&self) -> Result<String, PlotError> {
        drawn(&self.title, LINES_HEIGHT, |root| self.draw(root))
    }

    fn draw(&self, root: &Area<'_>) -> Drawing {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let xs = decades(points().map(|point| point.0), 0.06);
        let ys = decades(points().map(|point| point.1), 0.1);
        let chart = Frame::new(root, LEFT, LINES_HEIGHT, xs, ys.clone());
        let mut ticks: Vec<f64> = points().map(|point| point.0).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        for tick in ticks {
            chart.tick_x(tick.log10(), &format!("{tick}"))?;
        }
        for (value, text) in logarithmic_ticks(&ys) {
            chart.tick_y(value, &text)?;
        }
        chart.label_x(&self.x)?;
        chart.label_y(&self.y)?;
        for (n, (_, points)) in self.series.iter().enumerate() {
            let at: Vec<Pixel> =
                points.iter().map(|(x, y)| chart.at(x.log10(), y.log10())).collect();
            chart.line(Self::look(n), &at)?;
            at.iter().try_for_each(|point| chart.marker(Self::look(n), *point))?;
        }
        // From the top in the order in which the lines end, so that the eye finds them.
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        let end = |n: &usize| self.series[*n].1.last().map_or(0.0, |point| point.1);
        order.sort_by(|a, b| end(b).total_cmp(&end(a)));
        chart.legend(order.into_iter().map(|n| (Self::look(n), self.series[n].0.as_str())))
    }

    /// The first series is what the others are compared with.
    fn look(series: usize) -> Look {
        Look { width: if series == 0 { 4 } else { 2 }, ..Look::of(series) }
    }
}

impl Course {
    /// As an SVG document.
    ///
    /// # Errors
    /// If it can't be drawn.
    pub fn svg(&self) -> Result<String, PlotError> {
        drawn(&self.title, LINES_HEIGHT, |root| self.draw(root))
    }

    fn draw(&self, root: &Area<'_>) -> Drawing {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let times = points().map(|point| point.0).chain(self.marks.iter().map(|mark| mark.0));
        let to = |values: &mut dyn Iterator<Item = f64>| 0.0..values.fold(1e-9, f64::max) * 1.05;
        let (xs, ys) = (to(&mut { times }), to(&mut points().map(|point| point.1)));
        let chart = Frame::new(root, LEFT, LINES_HEIGHT, xs.clone(), ys.clone());
        for tick in linear_ticks(&xs) {
            chart.tick_x(tick, &format!("{tick}"))?;
        }
        for tick in linear_ticks(&ys) {
            chart.tick_y(tick, &format!("{tick}"))?;
        }
        chart.label_x(&self.x)?;
        chart.label_y(&self.y)?;
        for (n, (at, what)) in self.marks.iter().enumerate() {
            chart.mark(*at, what, n as i32)?;
        }
        for (n, (_, points)) in self.series.iter().enumerate() {
            let at: Vec<Pixel> = points.iter().map(|(x, y)| chart.at(*x, *y)).collect();
            chart.line(Look::of(n), &at)?;
        }
        let names = self.series.iter().enumerate().map(|(n, name)| (Look::of(n), name.0.as_str()));
        chart.legend(names)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawing = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Pixel = (i32, i32);

/// A plotting area with axes, and what is written around it.
struct Frame<'r, 'a> {
    root: &'r Area<'a>,
    coordinates: Cartesian2d<RangedCoordf64, RangedCoordf64>,
    left: i32,
    bottom: i32,
}

/// How a series is drawn.
#[derive(Clone, Copy)]
struct Look {
    color: RGBColor,
    shape: usize,
    dashed: bool,
    width: u32,
}

impl Look {
    fn of(series: usize) -> Self {
        let color = COLORS[series % COLORS.len()];
        Self { color, shape: series % SHAPES, dashed: series >= COLORS.len(), width: 2 }
    }
}

impl<'r, 'a> Frame<'r, 'a> {
    fn new(root: &'r Area<'a>, left: i32, height: i32, xs: Range<f64>, ys: Range<f64>) -> Self {
        let bottom = height - FOOT;
        let coordinates = Cartesian2d::new(xs, ys, (left..WIDTH - RIGHT, bottom..HEAD));
        Self { root, coordinates, left, bottom }
    }

    fn at(&self, x: f64, y: f64) -> Pixel {
        self.coordinates.translate(&(x, y))
    }

    fn text(&self, text: &str, at: Pixel, size: i32, anchor: (HPos, VPos)) -> Drawing {
        let style = ("sans-serif", size).into_text_style(self.root).color(&INK);
        self.root.draw_text(text, &style.pos(Pos::new(anchor.0, anchor.1)), at)
    }

    fn tick_x(&self, x: f64, text: &str) -> Drawing {
        let at = self.at(x, 0.0).0;
        self.root.draw(&PathElement::new(vec![(at, HEAD), (at, self.bottom)], GRID))?;
        self.text(text, (at, self.bottom + 6), NORMAL, (HPos::Center, VPos::Top))
    }

    fn tick_y(&self, y: f64, text: &str) -> Drawing {
        let at = self.at(0.0, y).1;
        let line = vec![(self.left, at), (WIDTH - RIGHT, at)];
        self.root.draw(&PathElement::new(line, GRID))?;
        self.text(text, (self.left - 6, at), NORMAL, (HPos::Right, VPos::Center))
    }

    fn label_x(&self, text: &str) -> Drawing {
        let at = (i32::midpoint(self.left, WIDTH - RIGHT), self.bottom + 28);
        self.text(text, at, NORMAL, (HPos::Center, VPos::Top))
    }

    /// Above the axis and not along it: nobody has to turn their head.
    fn label_y(&self, text: &str) -> Drawing {
        self.text(text, (self.left, HEAD - 8), NORMAL, (HPos::Left, VPos::Bottom))
    }

    /// A rule at a moment, and what it stands for: a line lower for each, so that none hides
    /// another.
    fn mark(&self, x: f64, text: &str, n: i32) -> Drawing {
        let at = self.at(x, 0.0).0;
        let rule = vec![(at, HEAD), (at, self.bottom)];
        self.root.draw(&PathElement::new(rule, INK.stroke_width(1)))?;
        // To the side on which there is more room.
        let middle = i32::midpoint(self.left, WIDTH - RIGHT);
        let (aside, anchor) = if at > middle { (-6, HPos::Right) } else { (6, HPos::Left) };
        self.text(text, (at + aside, HEAD + 4 + 18 * n), SMALL, (anchor, VPos::Top))
    }

    fn category(&self, y: f64, name: &str) -> Drawing {
        let at = (self.left - 8, self.at(0.0, y).1);
        self.text(name, at, NORMAL, (HPos::Right, VPos::Center))
    }

    fn line(&self, look: Look, points: &[Pixel]) -> Drawing {
        let style = look.color.stroke_width(look.width);
        if look.dashed {
            let path = points.iter().copied();
            self.root.draw(&DashedPathElement::new(path, 6, 4, style))
        } else {
            self.root.draw(&PathElement::new(points.to_vec(), style))
        }
    }

    fn marker(&self, look: Look, at: Pixel) -> Drawing {
        let (filled, thick) = (look.color.filled(), look.color.stroke_width(2));
        let around = |corners: [Pixel; 4]| corners.map(|(x, y)| (at.0 + x, at.1 + y)).to_vec();
        match look.shape {
            0 => self.root.draw(&Circle::new(at, 5, filled)),
            1 => {
                self.root.draw(&Polygon::new(around([(-4, -4), (4, -4), (4, 4), (-4, 4)]), filled))
            }
            2 => self.root.draw(&TriangleMarker::new(at, 6, filled)),
            3 => self.root.draw(&Polygon::new(around([(0, -6), (6, 0), (0, 6), (-6, 0)]), filled)),
            _ => self.root.draw(&Cross::new(at, 4, thick)),
        }
    }

    fn legend<'n>(&self, names: impl Iterator<Item = (Look, &'n str)>) -> Drawing {
        for (n, (look, name)) in names.enumerate() {
            let (x, y) = (WIDTH - RIGHT + 16, HEAD + 10 + 22 * n as i32);
            self.line(look, &[(x, y), (x + 28, y)])?;
            self.marker(look, (x + 14, y))?;
            self.text(name, (x + 36, y), NORMAL, (HPos::Left, VPos::Center))?;
        }
        Ok(())
    }
}

fn drawn(
    title: &str,
    height: i32,
    draw: impl FnOnce(&Area<'_>) -> Drawing,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    let size = (WIDTH as u32, height.unsigned_abs());
    let done = {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let style = ("sans-serif", LARGE).into_text_style(&root).color(&INK);
        root.fill(&WHITE)
            .and_then(|()| root.draw_text(title, &style, (16, 14)))
            .and_then(|()| draw(&root))
            .and_then(|()| root.present())
    };
    done.map_err(|error| PlotError { title: title.to_owned(), cause: error.to_string() })?;
    Ok(svg)
}

/// The exponents that some positive values span, and a share of that on both sides.
fn decades(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) =
        values.map(f64::log10).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    let room = ((high - low) * margin).max(0.05);
    if low.is_finite() { low - room..high + room } else { 0.0..1.0 }
}

/// The logarithms of round numbers, and what they are: powers of ten, and where these are few, twice
/// and five times them.
fn logarithmic_ticks(axis: &Range<f64>) -> Vec<(f64, String)> {
    let digits: &[u8] = if axis.end - axis.start < 2.0 { &[1, 2, 5] } else { &[1] };
    let exponents = axis.start.floor() as i32..=axis.end.floor() as i32;
    let ticks = exponents.flat_map(|exponent| {
        digits.iter().map(move |digit| {
            (f64::from(exponent) + f64::from(*digit).log10(), round_number(*digit, exponent))
        })
    });
    ticks.filter(|(value, _)| (axis.start..=axis.end).contains(value)).collect()
}

/// A digit times a power of ten, with a gap between groups of three digits: nobody counts zeros.
fn round_number(digit: u8, exponent: i32) -> String {
    let Ok(zeros) = usize::try_from(exponent) else {
        return format!("0.{}{digit}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    };
    let first = format!("{digit}") + &"0".repeat(zeros % 3);
    first + &" 000".repeat(zeros / 3)
}

/// Round numbers, five to ten of them.
fn linear_ticks(axis: &Range<f64>) -> Vec<f64> {
    let span = axis.end - axis.start;
    let magnitude = 10_f64.powf((span / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * magnitude);
    let step = steps.into_iter().find(|step| span / step <= 10.0).unwrap_or(magnitude * 10.0);
    let first = (axis.start / step).ceil() as i64;
    let last = (axis.end / step).floor() as i64;
    // By division, which gives 0.3 where 3 * 0.1 gives 0.30000000000000004.
    let per_unit = (1.0 / step).max(1.0);
    (first..=last)
        .map(|n| if step < 1.0 { n as f64 / per_unit.round() } else { n as f64 * step })
        .collect()
}

const COLORS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
const SHAPES: usize = 5;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const BAND: RGBColor = RGBColor(0xe8, 0xee, 0xd8);

const LARGE: i32 = 19;
const NORMAL: i32 = 14;
const SMALL: i32 = 13;

const WIDTH: i32 = 960;
const LINES_HEIGHT: i32 = 560;
const LEFT: i32 = 90;
/// Room for the names of categories.
const WIDE_LEFT: i32 = 200;
/// Room for the legend.
const RIGHT: i32 = 230;
/// Room for the title.
const HEAD: i32 = 80;
/// Room for the axis.
const FOOT: i32 = 60;
const ROW: i32 = 44;

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Ranges {
        let spread = Spread { low: 1.0, middle: 1.5, high: 2.0 };
        Ranges {
            title: "a < b".to_owned(),
            x: "times".to_owned(),
            series: vec!["one".to_owned(), "two".to_owned()],
            rows: vec![("first".to_owned(), vec![Some(spread), None])],
            band: Some((1.2..1.4, "here".to_owned())),
            ..Ranges::default()
        }
    }

    fn check(svg: &str, texts: &[&str]) {
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in texts {
            assert!(svg.contains(text), "no {text:?} in {svg}");
        }
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn ranges_show_all_that_they_are_given() {
        check(
            &ranges().svg().expect("drawn"),
            &["a &lt; b", "times", "one", "two", "first", "here"],
        );
        check(&Ranges::default().svg().expect("drawn"), &[]);
    }

    #[test]
    fn lines_show_all_that_they_are_given() {
        let series = vec![("up".to_owned(), vec![(20.0, 3.0), (1000.0, 5000.0)])];
        let lines = Lines { title: "t".to_owned(), x: "N".to_owned(), y: "n".to_owned(), series };
        check(&lines.svg().expect("drawn"), &["up", "20", "1000", "10", "100"]);
        check(&Lines::default().svg().expect("drawn"), &[]);
    }

    #[test]
    fn courses_show_all_that_they_are_given() {
        let series = vec![("rate".to_owned(), vec![(0.0, 0.0), (4.0, 8.0)])];
        let marks = vec![(2.0, "a goes".to_owned()), (3.5, "b goes".to_owned())];
        let (x, y) = ("s".to_owned(), "1/s".to_owned());
        let course = Course { title: "t".to_owned(), x, y, series, marks };
        check(&course.svg().expect("drawn"), &["rate", "a goes", "b goes", "8", "1/s"]);
        check(&Course::default().svg().expect("drawn"), &[]);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(linear_ticks(&(0.0..1.03)), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(linear_ticks(&(0.0..7.0)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(linear_ticks(&(0.0..30.0)), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        let powers = [-1, 0, 2, 3, 7].map(|exponent| round_number(1, exponent));
        assert_eq!(powers, ["0.1", "1", "100", "1 000", "10 000 000"]);
        assert_eq!(
            [(2, -2), (5, 4)].map(|(digit, at)| round_number(digit, at)),
            ["0.02", "50 000"]
        );
        let texts = |axis| -> Vec<String> {
            logarithmic_ticks(&axis).into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(texts(0.5..1.4), ["5", "10", "20"]);
        assert_eq!(texts(-0.1..2.1), ["1", "10", "100"]);
    }

    #[test]
    fn every_series_looks_different() {
        let look = |n| {
            let Look { color, shape, dashed, width: _ } = Look::of(n);
            (color.0, color.1, color.2, shape, dashed)
        };
        let looks: std::collections::BTreeSet<_> = (0..13).map(look).collect();
        assert_eq!(looks.len(), 13);
    }
}
