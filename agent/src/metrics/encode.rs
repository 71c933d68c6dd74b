//! Rows of a metric, in the words of the library.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::health::DurationHistogram;

/// Values of one metric: labels and number.
pub(super) type Rows<'a, V> = Vec<(Vec<(&'a str, &'a str)>, V)>;

pub(super) fn counters(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, rows: Rows<'_, u64>) -> fmt::Result {
    let family = e.encode_descriptor(name, help, None, MetricType::Counter)?;
    write(family, rows.into_iter().map(|(labels, n)| (labels, ConstCounter::new(n))))
}

pub(super) fn gauges<V>(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, rows: Rows<'_, V>) -> fmt::Result
where
    ConstGauge<V>: EncodeMetric,
{
    let family = e.encode_descriptor(name, help, None, MetricType::Gauge)?;
    write(family, rows.into_iter().map(|(labels, v)| (labels, ConstGauge::new(v))))
}

/// One line per row; a row without labels is the metric's only one.
fn write<'a, M: EncodeMetric>(
    mut family: MetricEncoder<'_>,
    rows: impl Iterator<Item = (Vec<(&'a str, &'a str)>, M)>,
) -> fmt::Result {
    for (labels, metric) in rows {
        if labels.is_empty() {
            return metric.encode(family);
        }
        metric.encode(family.encode_family(&&labels[..])?)?;
    }
    Ok(())
}

pub(super) fn histogram(h: &DurationHistogram, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    let (sum, count, buckets) = h.read();
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}
