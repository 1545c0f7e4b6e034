//! Logs, traces and metrics of the process.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use recast_config::{LogFormat, TelemetrySettings};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("telemetry.log {filter:?} is not a filter ({reason}): use for example info, or warn,recast_gateway=debug")]
    Filter {
        /// What the settings say.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Spans cannot be exported.
    #[error("telemetry.otlp_endpoint {endpoint:?} cannot be used ({reason}): use for example http://collector:4317")]
    Otlp {
        /// What the settings say.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// What libraries may log unless `telemetry.log` says otherwise.
const LIBRARIES: &str = "qdrant_edge=error,mistralrs_core=error,mistralrs_quant=error";

/// Keeps the span exporter; dropped or shut down, it sends what it still holds.
#[derive(Debug, Default)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

/// Sets up logging to stderr, and the export of spans where an endpoint is set. Once a process, inside a runtime.
///
/// # Errors
/// A filter or endpoint that cannot be used, or a second call.
pub fn init(settings: &TelemetrySettings) -> Result<Telemetry, TelemetryError> {
    // Libraries talk of their own defaults at every start; a filter that names them brings that back.
    let filter = EnvFilter::try_new(format!("{LIBRARIES},{}", settings.log))
        .map_err(|error| TelemetryError::Filter { filter: settings.log.clone(), reason: error.to_string() })?;
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let spans = exporter(settings)?;
    // Spans of the stages are at debug level: they cost nothing unless somebody collects them.
    let ours = ["recast_gateway", "recast_rewriter", "recast_retrieval", "recast_episodes"];
    let collected = spans.as_ref().map(|provider| {
        let tracer = provider.tracer("recast");
        let filter = Targets::new().with_targets(ours.map(|name| (name, LevelFilter::DEBUG)));
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter)
    });
    tracing_subscriber::registry().with(collected).with(lines).try_init().map_err(|_| TelemetryError::Twice)?;
    Ok(Telemetry { spans })
}

fn exporter(settings: &TelemetrySettings) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    if settings.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(&settings.otlp_endpoint).build().map_err(|error| {
            TelemetryError::Otlp { endpoint: settings.otlp_endpoint.clone(), reason: error.to_string() }
        })?;
    let resource = Resource::builder().with_service_name("recast").build();
    Ok(Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
}

impl Telemetry {
    /// Sends what is still held; blocks for a few seconds at most.
    pub fn shutdown(self) {
        if let Some(provider) = self.spans
            && let Err(error) = provider.shutdown()
        {
            tracing::warn!(%error, "some spans were not exported");
        }
    }
}

/// The process's metrics; the first call starts collecting.
///
/// There is one recorder a process, so gateways that run side by side in tests share it.
pub fn prometheus() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let seconds =
            [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let builder = PrometheusBuilder::new();
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds);
        // The list is not empty, so this cannot fail; plain summaries would still be served.
        let recorder = builder.unwrap_or_else(|_| PrometheusBuilder::new()).build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is in place; /metrics stays empty");
        }
        handle
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_however_often_they_are_set_up() {
        prometheus();
        metrics::counter!("recast_test_total").increment(2);
        assert!(prometheus().render().contains("recast_test_total 2"));
    }

    #[test]
    fn a_bad_filter_is_said() {
        let settings =
            TelemetrySettings { log: "a=b=c".into(), log_format: LogFormat::Text, otlp_endpoint: String::new() };
        assert!(init(&settings).unwrap_err().to_string().contains("telemetry.log"));
    }
}
