//! Lines, boxes and text on an oversized bitmap that is averaged down. Coordinates are pixels of the oversized bitmap.

use std::sync::Once;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

/// How much larger than the picture things are drawn.
pub(super) const SCALE: u32 = 2;
/// Font of all text.
const FONT: &str = "kinewatch";

pub(super) type Drawn = Result<(), String>;
pub(super) type Colour = (u8, u8, u8);

/// Where a text stands to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Left,
    Right,
    Centre,
}

/// A drawing surface.
pub(super) struct Canvas<'a> {
    area: DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>,
}

/// Paints `width` x `height` pixels and returns them as packed RGB.
pub(super) fn paint(width: u32, height: u32, with: &dyn Fn(&Canvas<'_>) -> Drawn) -> Result<Vec<u8>, String> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        // The bytes are constants of the binary: a font that cannot be read shows as an error of the first text drawn.
        let _regular = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
        let _bold = register_font(FONT, FontStyle::Bold, dejavu::sans::bold());
    });
    let (w, h) = (width * SCALE, height * SCALE);
    let mut large = vec![255_u8; (w * h * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut large, (w, h)).into_drawing_area();
        let canvas = Canvas { area };
        with(&canvas)?;
        canvas.area.present().map_err(|e| e.to_string())?;
    }
    Ok(shrink(&large, width as usize, height as usize))
}

/// Averages squares of `SCALE` pixels.
fn shrink(large: &[u8], width: usize, height: usize) -> Vec<u8> {
    let s = SCALE as usize;
    let stride = width * s * 3;
    let mut small = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let mut sum = 0_usize;
                for dy in 0..s {
                    let row = (y * s + dy) * stride + x * s * 3 + channel;
                    sum += (0..s).map(|dx| large[row + dx * 3] as usize).sum::<usize>();
                }
                small.push((sum / (s * s)) as u8);
            }
        }
    }
    small
}

fn rgb((r, g, b): Colour) -> RGBColor {
    RGBColor(r, g, b)
}

impl Canvas<'_> {
    pub(super) fn text(
        &self,
        at: (i32, i32),
        text: &str,
        size: i32,
        colour: Colour,
        anchor: Anchor,
        bold: bool,
    ) -> Drawn {
        let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
        let h = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Right => HPos::Right,
            Anchor::Centre => HPos::Center,
        };
        let font = (FONT, f64::from(size), style).into_font().color(&rgb(colour)).pos(Pos::new(h, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), at, font)).map_err(|e| e.to_string())
    }

    /// Width of a text, pixels.
    pub(super) fn text_width(&self, text: &str, size: i32) -> i32 {
        let font = (FONT, f64::from(size), FontStyle::Normal).into_font();
        font.box_size(text).map_or(0, |(w, _)| w as i32)
    }

    pub(super) fn line(&self, points: Vec<(i32, i32)>, colour: Colour, width: u32) -> Drawn {
        let style = rgb(colour).stroke_width(width);
        self.area.draw(&PathElement::new(points, style)).map_err(|e| e.to_string())
    }

    /// A horizontal or vertical line of dashes.
    pub(super) fn dashes(&self, from: (i32, i32), to: (i32, i32), colour: Colour, dash: (i32, i32)) -> Drawn {
        let (on, off) = dash;
        let length = (to.0 - from.0).abs().max((to.1 - from.1).abs());
        let at = |d: i32| if from.1 == to.1 { (from.0 + d, from.1) } else { (from.0, from.1 + d) };
        let mut d = 0;
        while d < length {
            self.line(vec![at(d), at((d + on).min(length))], colour, 2)?;
            d += on + off;
        }
        Ok(())
    }

    pub(super) fn filled(&self, a: (i32, i32), b: (i32, i32), colour: Colour) -> Drawn {
        self.area.draw(&Rectangle::new([a, b], rgb(colour).filled())).map_err(|e| e.to_string())
    }

    pub(super) fn outlined(&self, a: (i32, i32), b: (i32, i32), colour: Colour, width: u32) -> Drawn {
        self.line(vec![a, (b.0, a.1), b, (a.0, b.1), a], colour, width)
    }

    /// A triangle that stands on its point.
    pub(super) fn triangle(&self, tip: (i32, i32), size: i32, colour: Colour, full: bool) -> Drawn {
        let corners = vec![(tip.0 - size, tip.1 - size * 3 / 2), (tip.0 + size, tip.1 - size * 3 / 2), tip];
        if full {
            return self.area.draw(&Polygon::new(corners, rgb(colour).filled())).map_err(|e| e.to_string());
        }
        self.area.draw(&Polygon::new(corners.clone(), WHITE.filled())).map_err(|e| e.to_string())?;
        self.line(corners.iter().copied().chain([corners[0]]).collect(), colour, 3)
    }
}

/// A colour mixed with white; `share` of the colour is kept.
pub(super) fn pale((r, g, b): Colour, share: f32) -> Colour {
    let mix = |v: u8| (255.0 - (255.0 - f32::from(v)) * share) as u8;
    (mix(r), mix(g), mix(b))
}
