//! `soft-reflective-ceiling-policy`

/// The highest band: 1. Others: open up to 1 − position · saturation / (bands − 1), from there once in
/// round(saturation / (1 − saturation)) turns, shut where the pool is full.
pub(super) fn ceiling(position: usize, bands: usize, saturation: f64, turn: u64) -> f64 {
    if position == 0 || bands < 2 {
        return 1.0;
    }
    let reflective = 1.0 - position as f64 * saturation / (bands - 1) as f64;
    if saturation < reflective {
        return 1.0;
    }
    if saturation >= 1.0 {
        return 0.0;
    }
    let period = (saturation / (1.0 - saturation)).round().max(1.0) as u64;
    if turn.is_multiple_of(period) { 1.0 } else { 0.0 }
}
