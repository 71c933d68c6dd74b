//! HTTP on the loopback address: `/metrics`, `/healthz`, `/readyz`, `/status`.
//!
//! Reads [`Shared`] and changes nothing. There is no authentication, so nothing here may show a secret, and nothing here
//! may be costly. Runs on a thread of its own: it must answer while anything else hangs, the control runtime included.

mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::health::Shared;
use crate::metrics::Metrics;

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("[web] listen = \"{address}\": {detail}")]
pub struct BindError {
    /// As configured.
    pub address: SocketAddr,
    /// What is wrong and what to do.
    pub detail: String,
}

/// The running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Web {
    _stop: watch::Sender<bool>,
}

#[derive(Clone)]
struct Served {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

/// Takes the address, so that a port in use is known at start-up, and answers on the thread `web`.
///
/// # Errors
/// [`BindError`], which names the key.
pub fn start(address: SocketAddr, shared: Arc<Shared>) -> Result<Web, BindError> {
    let refused = |e: std::io::Error| BindError { address, detail: format!("no thread to serve it ({e})") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(refused)?;
    let listener = runtime.block_on(bind(address))?;
    let (stop, stopped) = watch::channel(false);
    let serving = move || {
        if let Err(error) = runtime.block_on(serve(listener, shared, stopped)) {
            tracing::error!(%error, "the web server has ended: no metrics and no status any more");
        }
    };
    thread::Builder::new().name("web".into()).spawn(serving).map_err(refused)?;
    Ok(Web { _stop: stop })
}

/// Takes the address.
///
/// # Errors
/// [`BindError`], which names the key.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|e| {
        let detail = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use, perhaps by another kinewatch; choose another port, or \"off\"".to_owned()
            }
            std::io::ErrorKind::AddrNotAvailable => "this machine has no such address; use 127.0.0.1".to_owned(),
            std::io::ErrorKind::PermissionDenied => "not permitted; choose a port above 1023".to_owned(),
            _ => format!("{e}; choose another address, or \"off\""),
        };
        BindError { address, detail }
    })
}

/// Answers until `stop` becomes true, or its sender is gone.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let served = Served { metrics: Arc::new(Metrics::new(Arc::clone(&shared))), shared };
    let router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(served);
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

async fn index() -> &'static str {
    "kinewatch\n/metrics  Prometheus\n/healthz  is it alive\n/readyz   does it watch\n/status   everything, as JSON\n"
}

async fn metrics(State(served): State<Served>) -> Response {
    match served.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn healthz(State(served): State<Served>) -> (StatusCode, String) {
    answer("ok", served.shared.stuck(Instant::now()))
}

async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    answer("ready", served.shared.unready())
}

/// One plain line.
fn answer(well: &str, trouble: Option<impl std::fmt::Display>) -> (StatusCode, String) {
    match trouble {
        None => (StatusCode::OK, format!("{well}\n")),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
    }
}

async fn status(State(served): State<Served>) -> axum::Json<serde_json::Value> {
    axum::Json(status_json(&served.shared))
}

/// What `/status` says.
#[must_use]
pub fn status_json(shared: &Shared) -> serde_json::Value {
    status::render(shared)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::health::CameraView;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn every_page_answers_and_a_second_server_is_told_which_key() {
        let camera = CameraView::new("front", "rtsp://cam/1", vec!["falls".into()], vec!["fall".into()]);
        let shared = Arc::new(Shared::new("home", "box", "mqtt://127.0.0.1", vec![camera], vec!["falls".into()]));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, Arc::clone(&shared), stopped));

        let unready = get(address, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("\r\nopening model falls\n"), "{unready}");
        shared.ready.store(true, Relaxed);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/healthz").await.contains("ok"));
        shared.stages.store.limit_to(Duration::ZERO);
        shared.stages.store.touch(shared.started);
        while shared.stages.store.silence(Instant::now()).is_zero() {
            tokio::task::yield_now().await;
        }
        let unwell = get(address, "/healthz").await;
        assert!(
            unwell.starts_with("HTTP/1.1 503") && unwell.contains("\r\nstore makes no progress since "),
            "{unwell}"
        );
        shared.stages.store.rest(Instant::now());
        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.contains("openmetrics-text") && metrics.contains("kinewatch_stream_up{camera=\"front\"} 0"),
            "{metrics}"
        );
        let status = get(address, "/status").await;
        let body: serde_json::Value = serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((&body["cameras"][0]["name"], &body["ready"]), (&"front".into(), &true.into()));
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

        let error = bind(address).await.unwrap_err().to_string();
        assert!(error.contains("[web] listen") && error.contains("in use"), "{error}");
        stop.send(true).unwrap();
        server.await.unwrap().unwrap();
    }
}
