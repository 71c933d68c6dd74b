//! The line under a cloud of points that delays have lifted: offset and rate of a camera's clock.
//!
//! Pure arithmetic over a fixed number of points; owned by [`super::ClockMap`].
//!
//! Each point is `(pts, arrival - pts)`: the offset of the two clocks, plus a delay that is never below zero. The wanted
//! line lies under every point, and of all such lines as near to them as can be (least sum of distances): V. Paxson, "On
//! calibrating measurements of packet transit times", 1998; S. Moon, P. Skelly, D. Towsley, "Estimation and removal of
//! clock skew from network delay measurements", 1999. That line carries the edge of the lower convex hull that spans the
//! mean of the points. Congestion lifts points away from it and moves nothing, as long as it lasts less than half of them.

/// Points of a fit at most.
pub(super) const MOST_POINTS: usize = 12;

/// A point, nanoseconds from some origin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// `y = height + rate * x`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub(super) height: f64,
    pub(super) rate: f64,
    /// Where the line touches points: it is known best between these.
    pub(super) touches: (f64, f64),
}

impl Line {
    pub(super) fn at(&self, x: f64) -> f64 {
        self.height + self.rate * x
    }

    /// Distance from the part of the line that points hold.
    pub(super) fn beyond(&self, x: f64) -> f64 {
        (self.touches.0 - x).max(x - self.touches.1).max(0.0)
    }

    /// The highest line of a given rate under the points.
    pub(super) fn of_rate(points: &[Point], rate: f64) -> Self {
        let height = points.iter().map(|p| p.y - rate * p.x).fold(f64::INFINITY, f64::min);
        // Half a microsecond: far below what is stated, far above what rounding does.
        let touched = points.iter().filter(|p| p.y - rate * p.x <= height + 500.0);
        let touches = touched.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (p.x.min(low), p.x.max(high)));
        Self { height, rate, touches }
    }

    /// The line nearest under the points, its rate within `limit` of `middle`. Points ascend in `x`; at least one.
    pub(super) fn under(points: &[Point], middle: f64, limit: f64) -> Self {
        let mean = points.iter().map(|p| p.x).sum::<f64>() / points.len().max(1) as f64;
        let mut hull = [Point::default(); MOST_POINTS];
        let mut corners = 0;
        for point in points.iter().take(MOST_POINTS) {
            while corners >= 2 && !turns_up(hull[corners - 2], hull[corners - 1], *point) {
                corners -= 1;
            }
            hull[corners] = *point;
            corners += 1;
        }
        let edge = hull[..corners].windows(2).find(|edge| edge[1].x >= mean);
        let rate = edge.map_or(middle, |edge| (edge[1].y - edge[0].y) / (edge[1].x - edge[0].x).max(1.0));
        // The sum of distances is convex in the rate: the best within the limits is the nearest to the best of all.
        Self::of_rate(points, rate.clamp(middle - limit, middle + limit))
    }
}

fn turns_up(a: Point, b: Point, c: Point) -> bool {
    (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x) > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(ys: &[f64]) -> Vec<Point> {
        ys.iter().enumerate().map(|(x, y)| Point { x: x as f64 * 1e10, y: y * 1e6 }).collect()
    }

    #[test]
    fn a_line_under_lifted_points_is_found() {
        // 3 ms a step (300 ppm), lifted here and there, at the end for long.
        let lifts = [0.0, 9.0, 40.0, 0.0, 2.0, 1.0, 0.0, 300.0, 200.0, 250.0, 300.0, 260.0];
        let ys: Vec<f64> = lifts.iter().enumerate().map(|(k, lift)| 3.0 * k as f64 + lift).collect();
        let line = Line::under(&points(&ys), 0.0, 1e-3);
        assert!((line.rate - 300e-6).abs() < 1e-9, "{line:?}");
        assert!((line.at(11e10) - 33e6).abs() < 1.0);
        assert_eq!((line.touches, line.beyond(3e10), line.beyond(8e10)), ((0.0, 6e10), 0.0, 2e10));
    }

    #[test]
    fn the_rate_stays_within_its_limit() {
        let line = Line::under(&points(&[0.0, 100.0, 200.0]), 0.0, 1e-3);
        assert_eq!((line.rate, line.at(0.0)), (1e-3, 0.0));
        let line = Line::under(&points(&[200.0, 100.0, 0.0]), 0.0, 1e-3);
        assert_eq!((line.rate, line.at(2e10)), (-1e-3, 0.0), "it touches the lowest");
    }

    #[test]
    fn one_point_is_a_line_of_the_middle_rate() {
        let line = Line::under(&[Point { x: 5.0, y: 7.0 }], 2e-4, 1e-3);
        assert_eq!((line.rate, line.at(5.0)), (2e-4, 7.0));
    }
}
