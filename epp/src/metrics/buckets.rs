//! Bounds of histograms: upstream's, so that its dashboards and rules work. Seconds, bytes, tokens.

/// Durations of requests.
pub(super) const REQUEST: [f64; 35] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
    120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
/// Durations of what the picker does itself.
pub(super) const SHORT: [f64; 10] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
/// Tokens. 32778 is upstream's.
pub(super) const TOKENS: [f64; 19] = [
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32778.0, 65536.0, 131072.0, 262144.0,
    524288.0, 1048576.0,
];
/// Tokens that were generated: as [`TOKENS`], up to 8192.
pub(super) const OUTPUT_TOKENS: usize = 12;
/// Bytes of responses. 32778 is upstream's.
pub(super) const RESPONSE_BYTES: usize = 15;
/// Time per token of a streamed answer. 0.00205 is upstream's.
pub(super) const STREAMED_TOKEN: [f64; 35] = [
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 4.5,
    6.0, 12.0, 18.0, 24.0, 30.0, 36.0, 48.0, 60.0, 90.0, 120.0, 180.0, 270.0, 360.0,
];
/// Duration of a request per token.
pub(super) const PER_TOKEN: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Shares.
pub(super) const RATIO: [f64; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Bytes of requests: 64 to 1 GiB, doubling.
pub(super) fn request_bytes() -> impl Iterator<Item = f64> {
    (6..=30).map(|power| f64::from(1_u32 << power))
}

/// Bytes of prefixes: 0, then 16 to 64 KiB, doubling.
pub(super) fn prefix_bytes() -> impl Iterator<Item = f64> {
    std::iter::once(0.0).chain((4..=16).map(|power| f64::from(1_u32 << power)))
}

/// Time in the picker's queue.
pub(super) const WAIT: [f64; 16] =
    [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
