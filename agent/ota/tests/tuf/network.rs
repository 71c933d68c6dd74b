//! Networks and servers as they are: slow, cut, busy, without ranges, wrong, elsewhere.

use std::io::Read as _;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kinewatch_core::rollout::Code;
use kinewatch_ota::tuf::{Client, Clock, Mirror, Options, Tls};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use url::Url;

use crate::lab::{BUNDLE, CHANNEL, Lab, bundle, channel};
use crate::repository::{Repository, target_path};
use crate::server::{Manner, Server};

/// A lab with a bundle of `length` bytes, not fetched yet.
async fn with_bundle(length: usize) -> (Lab, Vec<u8>) {
    let mut lab = Lab::new().await;
    let bytes = bundle(2, length);
    lab.repository.add(CHANNEL, &channel("1.1.0", 2));
    lab.repository.add(BUNDLE, &bytes);
    lab.repository.publish_all();
    lab.serve();
    (lab, bytes)
}

#[tokio::test]
async fn ten_cuts_cost_no_byte_twice() {
    let size = 2_000_000;
    let (mut lab, bytes) = with_bundle(size).await;
    lab.server.manner("bundle", Manner::Cut { after: size / 10, times: 10 });
    let fetched = lab.update().await.unwrap();
    assert_eq!(lab.fetched().unwrap(), bytes);
    assert!(fetched.requests >= 10, "{fetched:?}");
    assert!(fetched.received <= size as u64 * 11 / 10, "{fetched:?}");
    assert!(lab.server.with(|s| s.sent) <= size * 11 / 10);
}

#[tokio::test]
async fn a_cut_after_every_few_bytes_is_given_up() {
    let (mut lab, _) = with_bundle(200_000).await;
    lab.server.manner("bundle", Manner::Cut { after: 100, times: usize::MAX });
    assert_eq!(lab.code().await, Code::Unreachable);
    assert_eq!(lab.fetched(), None);
    lab.serve();
    let fetched = lab.update().await.unwrap();
    assert_eq!(fetched.resumed, 500, "five tries of 100 bytes");
}

#[tokio::test]
async fn a_server_without_ranges_is_read_past_what_is_there() {
    let (mut lab, bytes) = with_bundle(200_000).await;
    lab.server.manner("bundle", Manner::Cut { after: 150_000, times: 1 });
    lab.server.manner("bundle", Manner::NoRange);
    let fetched = lab.update().await.unwrap();
    assert_eq!(lab.fetched().unwrap(), bytes);
    assert_eq!((fetched.received, fetched.requests), (350_000, 2));
}

#[tokio::test]
async fn a_restart_goes_on_where_the_transfer_stopped() {
    let (mut lab, bytes) = with_bundle(200_000).await;
    lab.server.manner("bundle", Manner::Slow { piece: 10_000, pause: Duration::from_millis(20) });
    let mut client = lab.client();
    client.refresh(Clock::Synchronised(lab.now), &lab.floors).await.unwrap();
    let target = client.find(BUNDLE).await.unwrap();
    let (half, mut reached) = tokio::sync::mpsc::channel(64);
    let mut progress = |p: kinewatch_ota::tuf::Progress| {
        let _ = half.try_send(p.bytes);
    };
    let into = lab.bundle();
    let mut transfer = Box::pin(client.fetch(&target, &into, &mut progress));
    loop {
        tokio::select! {
            done = &mut transfer => panic!("{done:?} before half of it came"),
            bytes = reached.recv() => if bytes.unwrap() >= 100_000 { break },
        }
    }
    drop(transfer);
    drop(client);

    lab.serve();
    let fetched = lab.update().await.unwrap();
    assert_eq!(lab.fetched().unwrap(), bytes);
    assert!(fetched.resumed >= 50_000, "{fetched:?}");
    assert_eq!(fetched.resumed + fetched.received, 200_000);
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let (mut lab, _) = with_bundle(200_000).await;
    lab.update().await.unwrap();
    lab.server.with(|s| s.requests.clear());
    let fetched = lab.update().await.unwrap();
    assert_eq!((fetched.requests, fetched.received), (0, 0));
    let asked = lab.server.with(|s| s.requests.clone());
    assert_eq!(asked[..2], ["metadata/2.root.json", "metadata/timestamp.json"]);
    assert!(asked[2].starts_with("targets/channels/") && asked.len() == 3, "{asked:?}");
}

#[tokio::test]
async fn a_poisoned_part_file_costs_one_more_transfer() {
    let (mut lab, bytes) = with_bundle(200_000).await;
    let part = lab.folder.path().join("parts").join(format!("{}.part", crate::repository::sha256(&bytes)));
    for poison in [vec![0; 150_000], vec![0; 200_000], vec![0; 999_999]] {
        std::fs::write(&part, &poison).unwrap();
        let fetched = lab.update().await.unwrap();
        assert_eq!(lab.fetched().unwrap(), bytes);
        assert!(fetched.received <= 250_000, "{fetched:?}");
        std::fs::remove_file(lab.bundle()).unwrap();
    }
}

#[tokio::test]
async fn a_bundle_larger_than_the_disk_is_not_begun() {
    let (mut lab, bytes) = with_bundle(200_000).await;
    let disk = rustix::fs::statvfs(lab.folder.path()).unwrap();
    let targets = lab.repository.signed.get_mut("targets").unwrap();
    targets["targets"][BUNDLE]["length"] = (disk.f_bavail * disk.f_frsize + (1 << 40)).into();
    lab.repository.publish_all();
    lab.serve();
    assert_eq!(lab.code().await, Code::NoSpace);
    let asked = target_path(BUNDLE, &bytes);
    assert!(!lab.server.with(|s| s.requests.contains(&asked)));
    assert!(std::fs::read_dir(lab.folder.path().join("parts")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_short_retry_after_is_waited_for_and_a_long_one_is_told() {
    let (mut lab, _) = with_bundle(200_000).await;
    let busy = |seconds: &str, times| Manner::Status {
        status: "503 Service Unavailable",
        headers: format!("Retry-After: {seconds}\r\n"),
        times,
    };
    lab.server.manner("timestamp", busy("1", 1));
    lab.server.manner("bundle", busy("1", 1));
    let began = Instant::now();
    lab.update().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());

    std::fs::remove_file(lab.bundle()).unwrap();
    lab.serve();
    lab.server.manner("timestamp", busy("3600", 1));
    let refused = lab.client().refresh(Clock::Synchronised(lab.now), &lab.floors).await.unwrap_err();
    assert_eq!((refused.code(), refused.retry_after()), (Code::Unreachable, Some(Duration::from_secs(3600))));
    lab.serve();
    let dates = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 1994 09:49:37 GMT\r\n";
    lab.server
        .manner("timestamp", Manner::Status { status: "429 Too Many Requests", headers: dates.to_owned(), times: 1 });
    let refused = lab.client().refresh(Clock::Synchronised(lab.now), &lab.floors).await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(3600)), "by the server's own clock");
}

#[tokio::test]
async fn a_server_that_fails_for_a_moment_is_asked_again() {
    let (mut lab, _) = with_bundle(200_000).await;
    let failing = Manner::Status { status: "500 Oops", headers: String::new(), times: 2 };
    lab.server.manner("timestamp", failing.clone());
    lab.server.manner("bundle", failing);
    assert_eq!(lab.update().await.unwrap().requests, 3);
}

#[tokio::test]
async fn at_64_kbit_s_it_takes_its_time() {
    let (mut lab, bytes) = with_bundle(24_000).await;
    lab.pace.window = Duration::from_secs(1);
    lab.server.manner("bundle", Manner::Slow { piece: 800, pause: Duration::from_millis(100) });
    lab.update().await.unwrap();
    assert_eq!(lab.fetched().unwrap(), bytes);
}

#[tokio::test]
async fn a_rate_limit_is_kept() {
    let (mut lab, _) = with_bundle(400_000).await;
    lab.pace.rate_limit_bytes_per_s = NonZeroU64::new(400_000);
    let began = Instant::now();
    lab.update().await.unwrap();
    // The last piece is not waited for, and a piece may be as large as a buffer of the HTTP library.
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_dead_a_stale_and_a_wrong_mirror_are_passed_over() {
    let (mut lab, bytes) = with_bundle(200_000).await;
    lab.pace.tries = 1;
    let dead = Url::parse("http://127.0.0.1:9/").unwrap();
    let stale = Server::start(&Repository::new().files).await;
    let mut wrong = lab.repository.clone();
    wrong.files.get_mut(&target_path(BUNDLE, &bytes)).unwrap()[0] ^= 1;
    let wrong = Server::start(&wrong.files).await;

    let mirrors = [&dead, &stale.url, &wrong.url, &lab.server.url].map(Mirror::below).to_vec();
    let mut client = Client::open(Options { mirrors, ..lab.options() }).unwrap();
    let fetched = lab.update_with(&mut client).await.unwrap();
    assert_eq!(lab.fetched().unwrap(), bytes);
    assert_eq!((fetched.received, fetched.requests), (400_000, 2), "from the wrong one, then from the right one");
}

#[tokio::test]
async fn when_no_mirror_will_do_the_weightiest_reason_is_told() {
    let (mut lab, _) = with_bundle(200_000).await;
    lab.pace.tries = 1;
    lab.update().await.unwrap();
    let dead = Url::parse("http://127.0.0.1:9/").unwrap();
    let stale = Server::start(&Repository::new().files).await;
    let mirrors = [&dead, &stale.url, &dead].map(Mirror::below).to_vec();
    let mut client = Client::open(Options { mirrors, ..lab.options() }).unwrap();
    assert_eq!(lab.update_with(&mut client).await.unwrap_err().code, Code::TimestampRollback);
}

#[tokio::test]
async fn a_bundle_in_parts_from_two_mirrors_is_whole() {
    let (mut lab, bytes) = with_bundle(200_000).await;
    let second = Server::start(&lab.repository.files).await;
    lab.server.manner("bundle", Manner::Cut { after: 70_000, times: 1 });
    let mirrors = [&lab.server.url, &second.url].map(Mirror::below).to_vec();
    let mut client = Client::open(Options { mirrors, ..lab.options() }).unwrap();
    let fetched = lab.update_with(&mut client).await.unwrap();
    assert_eq!(lab.fetched().unwrap(), bytes);
    assert_eq!(fetched.received, 200_000);
    assert_eq!(second.with(|s| s.sent), 130_000);
}

#[tokio::test]
async fn everything_goes_through_the_proxy() {
    let (mut lab, bytes) = with_bundle(200_000).await;
    let mirrors = vec![Mirror::below(&Url::parse("http://repository.invalid/").unwrap())];
    let proxy = Some(lab.server.url.clone());
    let mut client = Client::open(Options { mirrors, proxy, ..lab.options() }).unwrap();
    lab.update_with(&mut client).await.unwrap();
    assert_eq!(lab.fetched().unwrap(), bytes);
}

#[tokio::test]
async fn credentials_are_used_and_not_told() {
    let (lab, _) = with_bundle(200_000).await;
    let url = Url::parse(&lab.server.url.as_str().replace("//", "//user:hunter2@")).unwrap();
    lab.server.manner("root", Manner::Status { status: "401 Unauthorized", headers: String::new(), times: 100 });
    let options = Options { mirrors: vec![Mirror::below(&url)], ..lab.options() };
    let refused = Client::open(options).unwrap().refresh(Clock::Synchronised(lab.now), &lab.floors).await.unwrap_err();
    assert!(!refused.to_string().contains("hunter2") && !refused.to_string().contains("user"), "{refused}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (mut lab, _) = with_bundle(200_000).await;
    let (url, ca) = tls_server("localhost");
    let mirrors = vec![Mirror::below(&url)];
    let mut client = Client::open(Options { mirrors: mirrors.clone(), ..lab.options() }).unwrap();
    assert_eq!(lab.update_with(&mut client).await.unwrap_err().code, Code::Certificate);

    // With its authority the handshake succeeds: what fails then is HTTP.
    let path = lab.folder.path().join("ca.pem");
    std::fs::write(&path, &ca).unwrap();
    let tls = Tls { ca: Some(path) };
    let mut client = Client::open(Options { mirrors, tls: tls.clone(), ..lab.options() }).unwrap();
    assert_eq!(lab.update_with(&mut client).await.unwrap_err().code, Code::Unreachable);

    // Its own name, not another one's.
    let ip = Url::parse(&url.as_str().replace("localhost", "127.0.0.1")).unwrap();
    let mut client = Client::open(Options { mirrors: vec![Mirror::below(&ip)], tls, ..lab.options() }).unwrap();
    assert_eq!(lab.update_with(&mut client).await.unwrap_err().code, Code::Certificate);
}

/// A server that speaks TLS and then nothing; its certificate in PEM.
fn tls_server(name: &str) -> (Url, String) {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("https://{name}:{}/", listener.local_addr().unwrap().port())).unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            let _ = tls.read(&mut [0; 1024]);
        }
    });
    (url, certified.cert.pem())
}
