//! Metrics that every core counts in a place of its own.
//!
//! A download of 4 KiB touches some ten metrics. Were each a single number, as in the exporter, the cores would spend a
//! twentieth of their time on passing these numbers' cache lines to and fro. Here they are summed when somebody looks.

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Values of a histogram that a place keeps before it hands them on.
const VALUES_MAX: usize = 64;
/// The most places of a metric.
const PLACES_MAX: usize = 16;

/// All metrics of the process.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    exporter: PrometheusHandle,
}

impl Metrics {
    /// Installs a recorder that hands on to this one; the sentence says why it could not be.
    pub(crate) fn install(exporter: PrometheusRecorder) -> Result<Metrics, String> {
        let handle = exporter.handle();
        let registry = Arc::new(Registry::new(exporter));
        metrics::set_global_recorder(registry.clone())
            .map_err(|error| format!("the metrics could not be set up: {error}"))?;
        Ok(Metrics { registry, exporter: handle })
    }

    /// Prometheus' text format, of this moment.
    pub(crate) fn render(&self) -> String {
        self.registry.hand_on();
        self.exporter.render()
    }

    /// Makes room in histograms; to be called every few seconds.
    pub(crate) fn run_upkeep(&self) {
        self.exporter.run_upkeep();
    }
}

/// What is counted, by name and labels. As many as there are series.
struct Registry {
    exporter: PrometheusRecorder,
    counters: Series<Count>,
    gauges: Series<Level>,
    histograms: Series<Values>,
}

impl Registry {
    fn new(exporter: PrometheusRecorder) -> Registry {
        Registry {
            exporter,
            counters: Series::default(),
            gauges: Series::default(),
            histograms: Series::default(),
        }
    }

    fn hand_on(&self) {
        self.counters.each(Count::hand_on);
        self.gauges.each(Level::hand_on);
        self.histograms.each(Values::hand_on);
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let make =
            || Count { places: Places::default(), total: self.exporter.register_counter(key, metadata) };
        Counter::from_arc(self.counters.of(key, make))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let make = || Level { places: Places::default(), total: self.exporter.register_gauge(key, metadata) };
        Gauge::from_arc(self.gauges.of(key, make))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let make =
            || Values { places: Places::default(), all: self.exporter.register_histogram(key, metadata) };
        Histogram::from_arc(self.histograms.of(key, make))
    }
}

/// Metrics of one kind.
struct Series<T>(RwLock<HashMap<Key, Arc<T>>>);

impl<T> Default for Series<T> {
    fn default() -> Series<T> {
        Series(RwLock::default())
    }
}

impl<T> Series<T> {
    fn of(&self, key: &Key, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return known.clone();
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(key.clone()).or_insert_with(|| Arc::new(make())).clone()
    }

    fn each(&self, what: impl Fn(&T)) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().for_each(|one| what(one));
    }
}

/// A value for each of so many threads, on cache lines that no other is on.
struct Places<T>(Box<[Place<T>]>);

#[derive(Default)]
#[repr(align(128))]
struct Place<T>(T);

impl<T: Default> Default for Places<T> {
    fn default() -> Places<T> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Places((0..cores.min(PLACES_MAX)).map(|_| Place::default()).collect())
    }
}

impl<T> Places<T> {
    /// That of this thread, which it may share.
    fn mine(&self) -> &T {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed));
        let place = THREAD.with(|thread| *thread) % self.0.len();
        &self.0[place].0
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|place| &place.0)
    }
}

/// A number that grows.
struct Count {
    places: Places<AtomicU64>,
    total: Counter,
}

impl Count {
    fn sum(&self) -> u64 {
        self.places.all().map(|place| place.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    fn hand_on(&self) {
        self.total.absolute(self.sum());
    }
}

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.places.mine().fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.increment(value.saturating_sub(self.sum()));
    }
}

/// A number that goes up and down: the bits of an `f64` in each place.
struct Level {
    places: Places<AtomicU64>,
    total: Gauge,
}

impl Level {
    fn hand_on(&self) {
        self.total
            .set(self.places.all().map(|place| f64::from_bits(place.load(Ordering::Relaxed))).sum::<f64>());
    }
}

impl GaugeFn for Level {
    fn increment(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // Never refused: `add` always has a new value.
        let _old = self.places.mine().fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn decrement(&self, value: f64) {
        self.increment(-value);
    }

    /// A step that is taken at the same time may be lost: a gauge is either set or stepped.
    fn set(&self, value: f64) {
        let values = std::iter::once(value).chain(std::iter::repeat(0.0));
        self.places
            .all()
            .zip(values)
            .for_each(|(place, value)| place.store(value.to_bits(), Ordering::Relaxed));
    }
}

/// How values are distributed.
struct Values {
    places: Places<Mutex<Vec<f64>>>,
    all: Histogram,
}

impl Values {
    fn hand_on(&self) {
        for place in self.places.all() {
            let mut values = place.lock().unwrap_or_else(PoisonError::into_inner);
            values.drain(..).for_each(|value| self.all.record(value));
        }
    }
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        let mut values = self.places.mine().lock().unwrap_or_else(PoisonError::into_inner);
        values.push(value);
        if values.len() >= VALUES_MAX {
            values.drain(..).for_each(|value| self.all.record(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn what_threads_count_is_summed() {
        let exporter = PrometheusBuilder::new().build_recorder();
        let handle = exporter.handle();
        let registry = Arc::new(Registry::new(exporter));
        metrics::with_local_recorder(&registry, || {
            let (counter, gauge) = (metrics::counter!("c", "of" => "a"), metrics::gauge!("g"));
            let histogram = metrics::histogram!("h");
            std::thread::scope(|scope| {
                for _ in 0..5 {
                    scope.spawn(|| {
                        for value in 0..1000_u32 {
                            counter.increment(2);
                            gauge.increment(3.0);
                            gauge.decrement(2.0);
                            histogram.record(f64::from(value));
                        }
                    });
                }
            });
            metrics::counter!("c", "of" => "a").increment(1);
            metrics::counter!("c", "of" => "b").absolute(7);
            metrics::counter!("c", "of" => "b").absolute(5);
            metrics::gauge!("s").increment(1.0);
            metrics::gauge!("s").set(9.5);
        });
        registry.hand_on();
        let text = handle.render();
        for line in ["c{of=\"a\"} 10001", "c{of=\"b\"} 7", "g 5000", "s 9.5", "h_count 5000", "h_sum 2497500"]
        {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
