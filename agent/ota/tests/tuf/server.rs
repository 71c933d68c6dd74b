//! A web server for static files, with manners.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// How files whose path contains a word are served.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// Never mind `Range`.
    NoRange,
    /// The connection is cut after so many bytes of the body, so many times.
    Cut { after: usize, times: usize },
    /// This status and these header lines, so many times.
    Status { status: &'static str, headers: String, times: usize },
    /// The body comes in pieces with pauses.
    Slow { piece: usize, pause: Duration },
    /// The head does not come.
    Silent,
    /// The body does not end, and says so.
    Endless,
    /// Only the first bytes exist, says the server.
    Truncated { to: usize },
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) manners: Vec<(&'static str, Manner)>,
    /// Paths asked for.
    pub(crate) requests: Vec<String>,
    /// Bytes of bodies written to sockets.
    pub(crate) sent: usize,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: Url,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) async fn start(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = Self { url, state: Arc::default() };
        server.serve(files);
        let state = server.state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, state.clone()));
            }
        });
        server
    }

    /// Serves these from now on, honestly.
    pub(crate) fn serve(&self, files: &BTreeMap<String, Vec<u8>>) {
        self.with(|state| *state = State { files: files.clone(), ..State::default() });
    }

    pub(crate) fn manner(&self, word: &'static str, manner: Manner) {
        self.with(|state| state.manners.push((word, manner)));
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}

async fn answer(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    // A proxy is asked for the whole address.
    let address = head.split(' ').nth(1).unwrap();
    let path = Url::parse(address).map_or(address.to_owned(), |url| url.path().to_owned());
    let path = path.trim_start_matches('/').to_owned();
    let from = head.lines().find_map(|l| l.strip_prefix("range: bytes=")?.trim_end_matches('-').parse().ok());
    let (file, manner) = {
        let mut state = state.lock().unwrap();
        state.requests.push(path.clone());
        (state.files.get(&path).cloned(), state.take_manner(&path))
    };
    let _ = respond(&mut stream, &state, file, from, manner).await;
    let _ = stream.shutdown().await;
}

impl State {
    /// The manner for `path`, used up once.
    fn take_manner(&mut self, path: &str) -> Option<Manner> {
        let (_, manner) = self.manners.iter_mut().find(|(word, manner)| path.contains(word) && !manner.is_used_up())?;
        if let Manner::Cut { times, .. } | Manner::Status { times, .. } = manner {
            *times -= 1;
        }
        Some(manner.clone())
    }
}

impl Manner {
    fn is_used_up(&self) -> bool {
        matches!(self, Self::Cut { times: 0, .. } | Self::Status { times: 0, .. })
    }
}

async fn respond(
    stream: &mut TcpStream,
    state: &Mutex<State>,
    file: Option<Vec<u8>>,
    from: Option<usize>,
    manner: Option<Manner>,
) -> std::io::Result<()> {
    if let Some(Manner::Status { status, headers, .. }) = &manner {
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
        return stream.write_all(head.as_bytes()).await;
    }
    let Some(mut file) = file else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    let mut from = from;
    match manner {
        Some(Manner::NoRange | Manner::Endless) => from = None,
        Some(Manner::Truncated { to }) => file.truncate(to),
        Some(Manner::Silent) => {
            let _ = stream.read_u8().await; // until the client goes
            return Ok(());
        }
        _ => {}
    }
    let total = file.len();
    let head = match from {
        _ if matches!(manner, Some(Manner::Endless)) => "200 OK\r\n".to_owned(),
        Some(from) if from >= total => format!("416 Range Not Satisfiable\r\nContent-Range: bytes */{total}\r\n"),
        Some(from) => {
            let length = total - from;
            let last = total - 1;
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{total}\r\nContent-Length: {length}\r\n")
        }
        None => format!("200 OK\r\nContent-Length: {total}\r\n"),
    };
    stream.write_all(format!("HTTP/1.1 {head}Connection: close\r\n\r\n").as_bytes()).await?;
    let body = &file[from.unwrap_or(0).min(total)..];
    let sent = |n: usize| state.lock().unwrap().sent += n;
    match manner {
        Some(Manner::Cut { after, .. }) => {
            let part = &body[..after.min(body.len())];
            stream.write_all(part).await?;
            sent(part.len());
        }
        Some(Manner::Slow { piece, pause }) => {
            for part in body.chunks(piece) {
                stream.write_all(part).await?;
                sent(part.len());
                tokio::time::sleep(pause).await;
            }
        }
        Some(Manner::Endless) => loop {
            stream.write_all(&[b' '; 8192]).await?;
            sent(8192);
        },
        _ => {
            stream.write_all(body).await?;
            sent(body.len());
        }
    }
    Ok(())
}
