//! A camera known by name, and a name server that is silent, then refuses, then answers.
//!
//! The agent sees another `/etc/resolv.conf` (a mount namespace of its own), which names a server of the bench's.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::stage::Stage;
use super::{ACTION, AGAIN, Pictures};
use crate::bench::{Context, Outcome};
use crate::media::Clip;
use crate::rig::{pause, wait_until};

const HOST: &str = "camera.kinewatch.test";
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 153);

const ANSWERS: u8 = 0;
const REFUSES: u8 = 1;
const SILENT: u8 = 2;

/// Runs the scenario.
pub(crate) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let tried = "name server silent, then without the name, then right again".to_owned();
    let Ok(socket) = UdpSocket::bind((SERVER, 53)) else {
        return Ok(Outcome::not_tried(tried, "it takes root to be a name server"));
    };
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        return Ok(Outcome::not_tried(tried, "no mount namespaces here"));
    }
    let mood = Arc::new(AtomicU8::new(ANSWERS));
    let own = Arc::clone(&mood);
    std::thread::spawn(move || serve(&socket, &own));
    let (resolv, nsswitch) = (context.folder.join("resolv.conf"), context.folder.join("nsswitch.conf"));
    std::fs::write(&resolv, format!("nameserver {SERVER}\n"))?;
    std::fs::write(&nsswitch, "hosts: files dns\n")?;
    let script = format!(
        "mount --bind '{}' /etc/resolv.conf && mount --bind '{}' /etc/nsswitch.conf && exec \"$@\"",
        resolv.display(),
        nsswitch.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let mut stage = Stage::start_at(&context.folder, [Clip::Plain; 2], "tcp", HOST, wrapper)?;
    let mut again = Vec::new();
    let mut first = None;
    for wrong in [SILENT, REFUSES] {
        stage.await_open_action()?;
        let before = stage.look()?;
        mood.store(wrong, Relaxed);
        stage.proxy.reset();
        wait_until("the name to be asked for in vain", Duration::from_secs(30), || {
            stage.agent.get("/status").is_some_and(|(_, body)| body.contains("cannot be resolved"))
        })?;
        pause(Duration::from_secs(context.count(75, 5).into()));
        stage.agent.must_live()?;
        mood.store(ANSWERS, Relaxed);
        again.push(stage.frames_again(Instant::now(), AGAIN)?);
        stage.await_whole_action(ACTION)?;
        ensure!(stage.look()?.sessions > before.sessions, "the stream was not lost");
        stage.ensure_an_action_was_lost()?;
        first.get_or_insert(before);
    }
    let before = first.unwrap();
    let judged = stage.finish(&before, Pictures::Whole)?;
    let happened = format!(
        "frames again after {:.1} s and {:.1} s; the open actions ended with `stream_lost`; {judged}",
        again[0].as_secs_f64(),
        again[1].as_secs_f64()
    );
    Ok(Outcome::new(tried, happened))
}

/// Answers every question for an IPv4 address with loopback, as the mood is.
fn serve(socket: &UdpSocket, mood: &AtomicU8) {
    let mut packet = [0; 512];
    while let Ok((length, asker)) = socket.recv_from(&mut packet) {
        let mood = mood.load(Relaxed);
        let Some(question) = packet.get(12..length).filter(|_| mood != SILENT) else { continue };
        let Some(name) = question.iter().position(|byte| *byte == 0) else { continue };
        let Some(question) = question.get(..name + 5) else { continue };
        let is_ipv4 = question[name + 1..name + 3] == [0, 1];
        let found = u8::from(mood == ANSWERS && is_ipv4);
        // A response that recursion is available for; 3 is "no such name" (RFC 1035 section 4.1.1).
        let code = if mood == REFUSES { 3 } else { 0 };
        let mut answer = vec![packet[0], packet[1], 0x81, 0x80 | code, 0, 1, 0, found, 0, 0, 0, 0];
        answer.extend_from_slice(question);
        if found == 1 {
            // The name of the question, an address, for no time at all, four bytes.
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
        }
        let _ = socket.send_to(&answer, asker);
    }
}
