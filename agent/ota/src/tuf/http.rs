//! One HTTP client: TLS with a named provider and known authorities, redirects and proxy bounded, every failure classed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::rfc2822;
use reqwest::header::{CONTENT_RANGE, DATE, HeaderMap, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{sleep, timeout};
use url::Url;

use super::pace::Reader;
use super::{Pace, Refused};

const REDIRECTS: usize = 5;

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authorities, PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    pace: Pace,
}

impl Http {
    /// Reads the certificate authorities: blocks on the disk. `proxy` replaces what `HTTPS_PROXY` and its kin say.
    pub(super) fn new(tls: &Tls, proxy: Option<&Url>, pace: Pace) -> Result<Self, Refused> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(client_config(tls)?)
            .user_agent(concat!("kinewatch/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::limited(REDIRECTS))
            .referer(false)
            .connect_timeout(pace.connect);
        let setup = |e: &reqwest::Error| Refused::Unreachable {
            url: proxy.map(shown).unwrap_or_default(),
            reason: format!("the HTTP client cannot be set up: {}", chain(e)),
            retry_after: None,
        };
        if let Some(proxy) = proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy.clone()).map_err(|e| setup(&e))?);
        }
        Ok(Self { client: builder.build().map_err(|e| setup(&e))?, pace })
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// A whole file of at most `limit` bytes. Tries again while only the way to the server is at fault.
    pub(super) async fn whole(&self, url: &Url, limit: u64) -> Result<Vec<u8>, Refused> {
        let mut idle = 0;
        loop {
            match self.whole_once(url, limit).await {
                Err(refused @ Refused::Unreachable { .. }) => {
                    idle += 1;
                    let Some(pause) = self.pace.pause_after(idle, &refused) else { return Err(refused) };
                    sleep(pause).await;
                }
                settled => return settled,
            }
        }
    }

    async fn whole_once(&self, url: &Url, limit: u64) -> Result<Vec<u8>, Refused> {
        let too_large = || Refused::TooLarge { url: shown(url), limit };
        let response = self.open(url, 0).await?;
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        if response.status() != StatusCode::OK {
            return Err(unreachable(url, format!("HTTP {}", response.status().as_u16()), None));
        }
        let mut reader = Reader::new(&self.pace, response);
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Asks for a file from byte `from` on; the head of the answer. [`extent`] tells where the body begins. Besides
    /// successes, "range not satisfiable" is returned, which is never the answer to `from` 0.
    pub(super) async fn open(&self, url: &Url, from: u64) -> Result<Response, Refused> {
        let mut request = self.client.get(url.clone());
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let Ok(answer) = timeout(self.pace.window, request.send()).await else {
            return Err(unreachable(url, format!("no answer in {} s", self.pace.window.as_secs()), None));
        };
        let response = answer.map_err(|e| failed(url, &e))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
            status @ (StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE) => {
                Err(Refused::NotFound { url: shown(url), status: status.as_u16() })
            }
            status => Err(unreachable(url, format!("HTTP {}", status.as_u16()), retry_after(response.headers()))),
        }
    }
}

/// Where the body of a successful answer begins, and how long the whole file is, if the server says.
pub(super) fn extent(response: &Response) -> Option<(u64, Option<u64>)> {
    if response.status() == StatusCode::OK {
        return Some((0, response.content_length()));
    }
    // bytes 5-9/10, bytes 5-9/*, bytes */10
    let (range, total) =
        response.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let start = if range == "*" { 0 } else { range.split_once('-')?.0.parse().ok()? };
    Some((start, total.parse().ok()))
}

/// A URL without credentials, for people.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// What a failed request means.
pub(super) fn failed(url: &Url, error: &reqwest::Error) -> Refused {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(e) = cause {
        let inner = e.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = e.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if let Some(rustls::Error::InvalidCertificate(reason)) = tls {
            return Refused::Certificate { url: shown(url), reason: reason.to_string() };
        }
        cause = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| e.source());
    }
    unreachable(url, chain(error), None)
}

fn unreachable(url: &Url, reason: String, retry_after: Option<Duration>) -> Refused {
    Refused::Unreachable { url: shown(url), reason, retry_after }
}

/// The innermost cause, which is what an operator can act on. The outer ones name the URL once more.
fn chain(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// `Retry-After` as seconds, or as a date by the server's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let after: &str = text(RETRY_AFTER)?;
    if let Ok(seconds) = after.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (until, now) = (rfc2822::parse(after).ok()?, rfc2822::parse(text(DATE)?).ok()?);
    Duration::try_from(now.timestamp().until(until.timestamp()).ok()?).ok()
}

/// The provider is named, as everywhere in kinewatch: with two of them compiled in, rustls would not choose one by itself.
fn client_config(tls: &Tls) -> Result<ClientConfig, Refused> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Refused::Certificate { url: String::new(), reason: e.to_string() })?;
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            roots.add_parsable_certificates(authorities(path)?);
        }
        // None at all is told when a server cannot be believed; a repository over plain HTTP needs none.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Refused> {
    let disk = |reason: String| Refused::Disk { path: path.to_owned(), reason };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| disk(e.to_string()))?.collect();
    match certificates {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(disk("contains no certificate in PEM form".to_owned())),
        Err(e) => Err(disk(e.to_string())),
    }
}
